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
    pub(super) fn arguments(self) -> Vec<String> {
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
}
