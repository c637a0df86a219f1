//! What a user can do about an error. Kept together so that the documentation can list them.

use super::{Error, Failure, HostKeyProblem, IdentityProblem};

const RSA_WHY: &str = "RSA is left out while RUSTSEC-2023-0071 is open";

pub(super) fn hint(error: &Error) -> Option<String> {
    let hint = match error.failure() {
        Failure::Resolve(_) | Failure::ResolveTimeout(_) => {
            "check the address in the fleet file and this machine's DNS".to_owned()
        }
        Failure::Tcp { .. } => {
            "check that the host is up, that sshd listens on this port and that no firewall is \
             in between"
                .to_owned()
        }
        Failure::BannerTimeout(_) => {
            "something accepts connections on this port but does not speak SSH; if it is sshd, \
             it may be waiting for DNS (`UseDNS no`)"
                .to_owned()
        }
        Failure::BannerClosed(_) => {
            "sshd drops connections when too many are unauthenticated at once (MaxStartups) or \
             when it penalises this address (PerSourcePenalties); raise \
             MaxStartups, or work on fewer hosts at a time (`--parallel`)"
                .to_owned()
        }
        Failure::NotSsh(_) => "check the port in the fleet file".to_owned(),
        Failure::KexTimeout(_) | Failure::Kex(_) => {
            "the link drops or changes packets: look at its MTU and at middleboxes".to_owned()
        }
        Failure::NoCommonAlgorithm { .. } => {
            "update the host's OpenSSH: we offer only algorithms that are considered sound"
                .to_owned()
        }
        Failure::HostKey(problem) => host_key_hint(problem),
        Failure::Identity { path, problem, .. } => identity_hint(path, problem)?,
        Failure::NoIdentity { agent, .. } => {
            format!("name an identity_file in the fleet file, or start an agent ({agent})")
        }
        Failure::Auth { methods, .. } => {
            let mut hint = "put the public key into ~/.ssh/authorized_keys of that user on the \
                            host, and check the login name"
                .to_owned();
            if !methods.is_empty() && !methods.iter().any(|m| m == "publickey") {
                hint = format!(
                    "this server accepts only {}; allow public keys (PubkeyAuthentication yes)",
                    methods.join(", ")
                );
            }
            hint
        }
        Failure::AuthTimeout(_) => {
            "the host is overloaded, or a PAM module or an agent waits for someone".to_owned()
        }
        Failure::AuthClosed { offered, .. } if offered.is_empty() => {
            "the host may be overloaded or penalise this address (PerSourcePenalties)".to_owned()
        }
        Failure::AuthClosed { .. } => {
            "sshd hangs up after MaxAuthTries keys: name the right key as identity_file, or \
             disable the agent for this host"
                .to_owned()
        }
        Failure::JumpRefused { prohibited: true, .. } => {
            "allow it in the jump's sshd_config: `AllowTcpForwarding yes` (or `local`), no \
             `DisableForwarding yes`, and a `PermitOpen` that has the host"
                .to_owned()
        }
        Failure::JumpRefused { prohibited: false, .. } => {
            "check that the jump itself can reach the host".to_owned()
        }
        Failure::ChannelRefused { what: "session", .. } => {
            "raise MaxSessions in the host's sshd_config".to_owned()
        }
        Failure::ChannelRefused { .. } => {
            "allow it in the host's sshd_config: `AllowStreamLocalForwarding yes` (or `local`) and \
             no `DisableForwarding yes`; or nothing listens on the socket"
                .to_owned()
        }
        Failure::SessionsExhausted { .. } => {
            "raise MaxSessions in the host's sshd_config".to_owned()
        }
        Failure::Lost(_) => "the operation can be repeated".to_owned(),
        Failure::ExecRefused => {
            "the host's sshd_config or authorized_keys forbids commands for this user".to_owned()
        }
        Failure::NotOurCommand { .. } => {
            "remove `ForceCommand` from the host's sshd_config and `command=` from its \
             authorized_keys for this key, and give the user a login shell"
                .to_owned()
        }
        Failure::LoginTimeout(_) => {
            "the login shell's rc files are slow, or `ForceCommand` or `command=` runs something \
             else that waits"
                .to_owned()
        }
        Failure::Noise(_) => "make the login shell's rc files quiet".to_owned(),
        Failure::Stalled { .. } => {
            "the link is dead or the host's disk hangs; the operation can be repeated".to_owned()
        }
        Failure::Closed
        | Failure::CircuitOpen(_)
        | Failure::ExecTimeout(_)
        | Failure::Flood(_)
        | Failure::Overflow(_)
        | Failure::Input { .. }
        | Failure::Spawn(_) => return None,
    };
    Some(hint)
}

fn host_key_hint(problem: &HostKeyProblem) -> String {
    match problem {
        HostKeyProblem::Unknown(_) => {
            "compare the fingerprint with the host's own (`ssh-keygen -lf \
             /etc/ssh/ssh_host_ed25519_key.pub` on it) and pin it as host_key in the fleet file, \
             or trust first use: `deploy --accept-new-host-keys`"
                .to_owned()
        }
        HostKeyProblem::Changed { .. } | HostKeyProblem::OtherType { .. } => {
            "either the machine was installed anew or someone is in between; if you know that it \
             is the former: `orchestrator hosts trust <host>`"
                .to_owned()
        }
        HostKeyProblem::NoPinnedType { .. } => {
            "the machine may have been installed anew: `orchestrator hosts trust <host>` shows \
             the old and the new key"
                .to_owned()
        }
        HostKeyProblem::PinUnsupported { .. } => format!(
            "only Ed25519 and ECDSA host keys can be checked ({RSA_WHY}): add the host's \
             Ed25519 key with `ssh -o HostKeyAlgorithms=ssh-ed25519 <host>` or `orchestrator \
             hosts trust <host>`"
        ),
        HostKeyProblem::Unsupported { .. } => format!(
            "only Ed25519 and ECDSA host keys can be checked ({RSA_WHY}): make them with \
             `ssh-keygen -A` on the host, name them as HostKey in its sshd_config and restart sshd"
        ),
        HostKeyProblem::Revoked { .. } => {
            "someone withdrew this key: the host needs a new one (`ssh-keygen -A`)".to_owned()
        }
        HostKeyProblem::Certificate { .. } => {
            "sign the host's key again (`ssh-keygen -s <ca> -h -n <address>`), or look at the \
             clocks"
                .to_owned()
        }
        HostKeyProblem::InvalidPin { .. } => {
            "write the output of `ssh-keygen -lf <host key>.pub`: `SHA256:` and 43 characters"
                .to_owned()
        }
    }
}

fn identity_hint(path: &std::path::Path, problem: &IdentityProblem) -> Option<String> {
    Some(match problem {
        IdentityProblem::Permissions { .. } => format!("chmod 600 {}", path.display()),
        IdentityProblem::UnsupportedType(_) => format!(
            "make an Ed25519 key (`ssh-keygen -t ed25519`), or add this one to an agent, which \
             signs for us ({RSA_WHY})"
        ),
        IdentityProblem::PassphraseMissing | IdentityProblem::PassphraseUnavailable => {
            "add the key to an agent (`ssh-add`), or name a file with the passphrase in \
             ORCHESTRATOR_KEY_PASSPHRASE_FILE"
                .to_owned()
        }
        IdentityProblem::PassphraseWrong => {
            "check ORCHESTRATOR_KEY_PASSPHRASE_FILE, or add the key to an agent (`ssh-add`)"
                .to_owned()
        }
        IdentityProblem::Unreadable => "check identity_file in the fleet file".to_owned(),
        IdentityProblem::CertificateWithoutKey => {
            "name the certificate's private key as identity_file".to_owned()
        }
        IdentityProblem::CertificateExpired => "have the key signed again".to_owned(),
        IdentityProblem::Malformed | IdentityProblem::NotACertificate => return None,
    })
}
