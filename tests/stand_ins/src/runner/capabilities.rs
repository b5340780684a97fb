//! What root may do in a container.

/// The capabilities of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capabilities {
    /// What containerd and docker give by default, and Container Instances to its containers
    /// (`default_unprivileged_capabilities` in azure-cli-extensions' confcom).
    Default,
    /// None at all.
    None,
    /// All that this process has: a privileged container of the Confidential SKU.
    All,
}

const DEFAULT: [&str; 14] = [
    "chown",
    "dac_override",
    "fsetid",
    "fowner",
    "mknod",
    "net_raw",
    "setgid",
    "setuid",
    "setfcap",
    "setpcap",
    "net_bind_service",
    "sys_chroot",
    "kill",
    "audit_write",
];

impl Capabilities {
    /// Arguments of `setpriv`.
    pub(super) fn for_setpriv(self) -> Vec<String> {
        let kept = match self {
            Self::All => return Vec::new(),
            Self::None => String::new(),
            Self::Default => DEFAULT.map(|name| format!(",+{name}")).concat(),
        };
        // The bounding set is what root gets at exec.
        vec![
            "--inh-caps=-all".to_owned(),
            "--ambient-caps=-all".to_owned(),
            format!("--bounding-set=-all{kept}"),
        ]
    }

    /// Arguments of `podman create`.
    pub(super) fn for_podman(self) -> Vec<String> {
        let kept = |more: &[&str]| -> Vec<String> {
            let all = DEFAULT.iter().chain(more);
            let kept = all.map(|name| format!("--cap-add={}", name.to_ascii_uppercase()));
            std::iter::once("--cap-drop=all".to_owned())
                .chain(kept)
                .collect()
        };
        match self {
            Self::Default => kept(&[]),
            Self::None => ["--cap-drop=all", "--security-opt=no-new-privileges"]
                .map(str::to_owned)
                .to_vec(),
            // Not `--privileged`, which asks for more than a root in a container may have itself:
            // what wg-quick needs of it.
            Self::All => {
                let mut arguments = kept(&["net_admin"]);
                arguments.push("--device=/dev/net/tun".to_owned());
                arguments.push("--security-opt=unmask=/proc/sys".to_owned());
                arguments
            }
        }
    }
}
