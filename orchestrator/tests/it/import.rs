//! Imports: what is printed is a fleet file, and says what it could not take over.

use std::path::Path;

use orchestrator::fleet_file::FleetFile;
use orchestrator::import::{ImportError, Imported, ansible_ini, ansible_yaml, ssh_config};

fn fleet(imported: &Imported) -> FleetFile {
    let fleet = FleetFile::parse(Path::new("fleet.toml"), &imported.toml).unwrap();
    assert_eq!(fleet.hosts.len(), imported.hosts);
    assert_eq!(imported.toml.matches("# not taken over: ").count(), imported.notes);
    fleet
}

const INI: &str = r#"
# a comment
lonely ansible_host=192.0.2.9

[gpu]
gpu[01:03] ansible_user=ubuntu
big:2222 ansible_host="10.0.0.9" ansible_password="hunter2 hunter" note=x   # why
v6 ansible_host=[2001:db8::9] ansible_port=not-a-port

[gpu:vars]
ansible_user = root
ansible_ssh_private_key_file = ~/.ssh/gpu
ansible_ssh_common_args = '-o ProxyJump=jump@b1:2200 -o ControlMaster=auto'
ansible_become_password = hunter3

[fra:children]
gpu

[fra:vars]
ansible_user = overridden
ansible_port = 2022

[local]
localhost ansible_connection=local
tpl ansible_host="{{ lookup('x') }}"
bad_$name ansible_host=10.0.0.1
"#;

#[test]
fn an_ini_inventory() {
    let imported = ansible_ini(INI).unwrap();
    let fleet = fleet(&imported);
    insta::assert_snapshot!(imported.toml);
    assert!(!imported.toml.contains("hunter"), "a secret was copied");
    let host = |name: &str| fleet.hosts.iter().find(|host| host.name.as_str() == name).unwrap();
    // Host over group, child group over parent group.
    assert_eq!(host("gpu01").server.settings.user.as_deref(), Some("ubuntu"));
    assert_eq!(host("big").server.settings.user.as_deref(), Some("root"));
    assert_eq!(host("big").server.settings.port, Some(2222));
    assert_eq!(host("gpu02").server.settings.port, Some(2022));
}

const YAML: &str = r#"
all:
  vars:
    ansible_user: ubuntu
  hosts:
    lonely:
      ansible_host: 192.0.2.9
  children:
    gpu:
      hosts:
        gpu[01:02]:
          ansible_port: 2222
        big:
          ansible_host: 10.0.0.9
          ansible_password: !vault |
            $ANSIBLE_VAULT;1.1;AES256
            6261
          ansible_ssh_extra_args: -J b1,b2
          disks: [a, b]
      vars:
        ansible_ssh_private_key_file: "~/.ssh/gpu"
    fra:
      children:
        gpu:
"#;

#[test]
fn a_yaml_inventory() {
    let imported = ansible_yaml(YAML).unwrap();
    let fleet = fleet(&imported);
    insta::assert_snapshot!(imported.toml);
    assert!(!imported.toml.contains("AES256"), "a secret was copied");
    assert_eq!(fleet.hosts.len(), 4);
    assert!(fleet.hosts.iter().all(|h| h.server.settings.user.as_deref() == Some("ubuntu")));
}

const SSH_CONFIG: &str = r#"
User everybody
Host bastion
    HostName bastion.example.com
    Port 2200
Host gpu-1 gpu-2
    HostName %h.lan
    IdentityFile ~/.ssh/a
    IdentityFile ~/.ssh/%h
    ProxyJump bastion
    HostKeyAlias pool
Host odd
    ProxyCommand nc %h %p
Match exec "true"
    User never
Host gpu-*
    Port 2022
    ServerAliveInterval 10
Host *
    IdentityFile ~/.ssh/b
"#;

#[test]
fn an_ssh_config() {
    let imported = ssh_config(SSH_CONFIG).unwrap();
    let fleet = fleet(&imported);
    insta::assert_snapshot!(imported.toml);
    let names: Vec<_> = fleet.hosts.iter().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["gpu-1", "gpu-2", "odd"]);
}

#[test]
fn what_is_no_inventory_is_refused() {
    assert!(matches!(ansible_ini("[gpu:bogus]\n"), Err(ImportError::Syntax { line: 1, .. })));
    assert!(matches!(ansible_ini("[gpu]\nh a=b c\n"), Err(ImportError::Syntax { line: 2, .. })));
    assert!(matches!(ansible_ini(""), Err(ImportError::NoHosts)));
    assert!(matches!(ansible_yaml("- a\n- b\n"), Err(ImportError::Yaml(_))));
    assert!(matches!(ansible_yaml("all:\n  host: {}\n"), Err(ImportError::Yaml(_))));
    assert!(matches!(ansible_yaml(""), Err(ImportError::NoHosts)));
    assert!(matches!(ssh_config("Host *\n User u\n"), Err(ImportError::NoHosts)));
    assert!(matches!(ansible_ini("h[0:99999999]\n"), Err(ImportError::TooMany)));
}

#[test]
fn a_yaml_error_does_not_repeat_the_document() {
    let text = "all:\n  vars:\n    ansible_password: hunter2: x\n";
    let error = ansible_yaml(text).unwrap_err().to_string();
    assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = "a0: &a0 {hosts: {h: }}\n".to_owned();
    for level in 1..30 {
        let list = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    assert!(matches!(ansible_yaml(&text), Err(ImportError::Yaml(_))));
}

#[test]
fn groups_in_a_circle_end() {
    let imported = ansible_ini("[a:children]\nb\n[b:children]\na\n[b]\nh\n").unwrap();
    assert_eq!(imported.hosts, 1);
}
