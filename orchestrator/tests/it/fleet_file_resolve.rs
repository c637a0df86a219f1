//! Resolution with the real `ssh` client.

use std::path::{Path, PathBuf};

use orchestrator::fleet_file::{Environment, FleetFile, Resolved, SshConfig, resolve};
use orchestrator::host_spec::{AgentSocket, Endpoint, HostSpec};

struct Bench {
    home: tempfile::TempDir,
}

impl Bench {
    fn new(ssh_config: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        std::fs::write(home.path().join(".ssh/config"), ssh_config).unwrap();
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn environment(&self) -> Environment {
        Environment {
            home: self.home.path().to_owned(),
            local_user: Some("me".to_owned()),
            ssh_config: SshConfig::File(self.path(".ssh/config")),
            ssh_program: Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/it/fleet_file_resolve/ssh-counted"),
        }
    }

    fn resolve(&self, fleet: &str) -> Result<Resolved, String> {
        let fleet = FleetFile::parse(Path::new("/etc/fleet/fleet.toml"), fleet).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let resolved = runtime.block_on(resolve(&fleet, &self.environment()));
        resolved.map_err(|error| error.to_string())
    }

    fn hosts(&self, fleet: &str) -> Vec<HostSpec> {
        self.resolve(fleet).unwrap().hosts
    }

    /// The names that the client was asked for.
    fn asked(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.path(".ssh/config.asked")).unwrap_or_default();
        let mut names: Vec<String> = log.lines().map(str::to_owned).collect();
        names.sort();
        names
    }
}

#[test]
fn without_ssh_config_the_defaults_are_those_of_ssh() {
    let bench = Bench::new("");
    std::fs::write(bench.path(".ssh/id_ecdsa"), "").unwrap();
    let hosts = bench.hosts("[[hosts]]\nname = \"gpu-01\"\naddress = \"10.0.0.1\"\n");
    let expected = Endpoint {
        address: "10.0.0.1".to_owned(),
        port: 22,
        user: "me".to_owned(),
        identity_files: vec![bench.path(".ssh/id_ecdsa")],
        certificate_files: vec![],
        agent: AgentSocket::Environment,
        host_key: None,
        host_key_alias: None,
        known_hosts_files: vec![],
    };
    assert_eq!(hosts[0].endpoint, expected);
    assert!(hosts[0].proxy_jump.is_empty());
    assert!(bench.asked().is_empty());
}

#[test]
fn an_alias_takes_everything_from_ssh_config() {
    let bench = Bench::new(
        "Host gpu\n HostName 10.9.9.9\n Port 2222\n User bob\n IdentityFile ~/.ssh/k-%r\n \
         CertificateFile ~/.ssh/k-cert.pub\n IdentityAgent none\n HostKeyAlias gpu-alias\n \
         UserKnownHostsFile /a/known /b/known\n ProxyJump carol@b1:2200,b2\n\
         Host b2\n HostName b2.example.com\n User dave\n",
    );
    let hosts = bench.hosts("[[hosts]]\nname = \"gpu\"\n");
    let endpoint = &hosts[0].endpoint;
    assert_eq!((endpoint.address.as_str(), endpoint.port), ("10.9.9.9", 2222));
    assert_eq!(endpoint.user, "bob");
    assert_eq!(endpoint.identity_files, [bench.path(".ssh/k-bob")]);
    assert_eq!(endpoint.certificate_files, [bench.path(".ssh/k-cert.pub")]);
    assert_eq!(endpoint.agent, AgentSocket::Disabled);
    assert_eq!(endpoint.host_key_alias.as_deref(), Some("gpu-alias"));
    assert_eq!(endpoint.known_hosts_files, [Path::new("/a/known"), Path::new("/b/known")]);
    let hops: Vec<_> =
        hosts[0].proxy_jump.iter().map(|h| (h.user.as_str(), h.address.as_str(), h.port)).collect();
    assert_eq!(hops, [("carol", "b1", 2200), ("dave", "b2.example.com", 22)]);
}

#[test]
fn the_fleet_file_wins_over_ssh_config() {
    let bench = Bench::new("Host gpu\n HostName 10.9.9.9\n Port 2222\n User bob\n ProxyJump b1\n");
    let hosts = bench.hosts(
        "[defaults]\nuser = \"ubuntu\"\nidentity_file = \"keys/k\"\n\
         [[hosts]]\nname = \"gpu\"\nport = 23\nproxy_jump = \"none\"\n",
    );
    let endpoint = &hosts[0].endpoint;
    assert_eq!((endpoint.address.as_str(), endpoint.port), ("10.9.9.9", 23));
    assert_eq!(endpoint.user, "ubuntu");
    assert_eq!(endpoint.identity_files, [Path::new("/etc/fleet/keys/k")]);
    assert!(hosts[0].proxy_jump.is_empty());
}

#[test]
fn a_jump_is_its_table_then_ssh_config_then_the_defaults() {
    let bench = Bench::new("Host b2.lan\n User bob\n");
    let pin = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let hosts = bench.hosts(&format!(
        "[defaults]\nuser = \"ubuntu\"\nport = 2222\nidentity_file = \"~/.ssh/fleet\"\nproxy_jump = \"b1,b2,eve@b3:24\"\n\
         [jumps.b1]\naddress = \"b1.lan\"\nuser = \"carol\"\nport = 2201\nidentity_file = \"~/.ssh/b1\"\nhost_key = \"{pin}\"\n\
         [jumps.b2]\naddress = \"b2.lan\"\n\
         [[hosts]]\nname = \"gpu\"\naddress = \"10.0.0.1\"\n"
    ));
    let hops: Vec<_> = hosts[0]
        .proxy_jump
        .iter()
        .map(|h| (h.user.as_str(), h.address.as_str(), h.port, h.identity_files[0].clone()))
        .collect();
    let fleet_key = bench.path(".ssh/fleet");
    assert_eq!(
        hops,
        [
            ("carol", "b1.lan", 2201, bench.path(".ssh/b1")),
            ("bob", "b2.lan", 22, fleet_key.clone()),
            ("eve", "b3", 24, fleet_key),
        ]
    );
    assert_eq!(hosts[0].proxy_jump[0].host_key.as_deref(), Some(pin));
    assert_eq!(hosts[0].endpoint.port, 2222);
}

#[test]
fn the_first_jump_is_reached_as_ssh_config_says() {
    let bench = Bench::new("Host b1\n ProxyJump outer\nHost outer\n HostName outer.lan\n");
    let hosts =
        bench.hosts("[[hosts]]\nname = \"gpu\"\naddress = \"10.0.0.1\"\nproxy_jump = \"b1\"\n");
    let hops: Vec<_> = hosts[0].proxy_jump.iter().map(|h| h.address.as_str()).collect();
    assert_eq!(hops, ["outer.lan", "b1"]);
}

#[test]
fn ipv6_addresses_and_ranges_of_them() {
    let bench = Bench::new("");
    let hosts = bench.hosts(
        "[[hosts]]\nname = \"a[1-2]\"\naddress = \"[2001:db8::[10-11]]\"\nproxy_jump = \"u@[2001:db8::1]:2222\"\n\
         [[hosts]]\nname = \"b\"\naddress = \"[::1]\"\n[[hosts]]\nname = \"c\"\naddress = \"fe80::1%eth0\"\n",
    );
    let addresses: Vec<_> = hosts.iter().map(|h| h.endpoint.address.as_str()).collect();
    assert_eq!(addresses, ["2001:db8::10", "2001:db8::11", "::1", "fe80::1%eth0"]);
    let hop = &hosts[0].proxy_jump[0];
    assert_eq!((hop.address.as_str(), hop.port), ("2001:db8::1", 2222));
}

#[test]
fn five_thousand_hosts_of_one_block_are_one_question() {
    let bench = Bench::new("Host 10.*\n User bob\nHost *\n ServerAliveInterval 5\n");
    let hosts = bench.hosts(
        "[[hosts]]\nname = \"g[0001-5000]\"\naddress = \"10.0.[1-20].[1-250]\"\n\
         [[hosts]]\nname = \"other\"\naddress = \"192.0.2.1\"\n",
    );
    assert_eq!(hosts.len(), 5001);
    assert!(hosts[..5000].iter().all(|host| host.endpoint.user == "bob"));
    assert_eq!(hosts[4999].endpoint.address, "10.0.20.250");
    assert_eq!(hosts[5000].endpoint.user, "me");
    assert_eq!(bench.asked().len(), 1);
}

#[test]
fn names_with_a_host_name_of_their_own_are_each_asked_once() {
    let bench = Bench::new("Host gpu-*\n HostName %h.lan\n");
    let hosts = bench.hosts(
        "[[hosts]]\nname = \"gpu-[1-2]\"\n[[hosts]]\nname = \"again\"\naddress = \"gpu-1\"\nport = 23\n",
    );
    let addresses: Vec<_> = hosts.iter().map(|h| h.endpoint.address.as_str()).collect();
    assert_eq!(addresses, ["gpu-1.lan", "gpu-2.lan", "gpu-1.lan"]);
    assert_eq!(bench.asked(), ["gpu-1", "gpu-2"]);
}

#[test]
fn two_aliases_of_one_host_name_do_not_lend_each_other_their_names() {
    let bench = Bench::new("Host gpu gpu-alias\n HostName gpu\n User bob\n");
    let hosts = bench
        .hosts("[[hosts]]\nname = \"gpu\"\n[[hosts]]\nname = \"x\"\naddress = \"gpu-alias\"\n");
    assert_eq!(hosts[1].endpoint.address, "gpu");
}

#[test]
fn what_cannot_be_followed_is_said_for_all_hosts_at_once() {
    let bench = Bench::new(
        "Host p-*\n ProxyCommand nc %h %p\nHost loop\n ProxyJump loop2\nHost loop2\n ProxyJump loop\n\
         Host t\n IdentityFile ~/k-%C\n",
    );
    let error = bench
        .resolve(
            "[[hosts]]\nname = \"p-[01-03]\"\n[[hosts]]\nname = \"loop\"\n[[hosts]]\nname = \"t\"\n\
             [[hosts]]\nname = \"fine\"\n",
        )
        .unwrap_err();
    insta::assert_snapshot!(error);
}

#[test]
fn a_broken_ssh_config_is_an_error_and_a_missing_client_a_warning() {
    let bench = Bench::new("Host gpu\n User bob\n Bogus yes\n");
    let error = bench.resolve("[[hosts]]\nname = \"gpu\"\n").unwrap_err();
    assert!(error.starts_with("gpu: ssh -G refused: "), "{error}");
    assert!(error.contains("bogus"), "{error}");

    let fleet = FleetFile::parse(Path::new("fleet.toml"), "[[hosts]]\nname = \"gpu\"\n").unwrap();
    let environment =
        Environment { ssh_program: PathBuf::from("/nonexistent/ssh"), ..bench.environment() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let resolved = runtime.block_on(resolve(&fleet, &environment)).unwrap();
    assert_eq!(resolved.warnings, ["ssh_config is not honoured: there is no ssh client"]);
    assert_eq!(resolved.hosts[0].endpoint.address, "gpu");
}

#[test]
fn a_command_in_ssh_config_is_announced() {
    let bench = Bench::new("Match exec true\n User bob\n");
    let resolved = bench.resolve("[[hosts]]\nname = \"gpu\"\n").unwrap();
    assert_eq!(resolved.hosts[0].endpoint.user, "bob");
    assert!(resolved.warnings[0].contains("Match exec"), "{:?}", resolved.warnings);
}

#[test]
fn two_hosts_at_one_address_are_a_warning() {
    let text = "[[hosts]]\nname = \"a\"\naddress = \"h\"\n[[hosts]]\nname = \"b\"\naddress = \"H\"\nport = 22\n";
    let fleet = FleetFile::parse(Path::new("fleet.toml"), text).unwrap();
    assert_eq!(fleet.hosts.len(), 2);
    insta::assert_snapshot!(fleet.warnings[0].render(&fleet.path));
}
