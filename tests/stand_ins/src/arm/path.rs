//! What a URL asks for. ARM compares paths without regard to case.

/// A container group's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupPath {
    pub(super) subscription: String,
    pub(super) resource_group: String,
    pub(super) name: String,
}

impl GroupPath {
    /// How the group is found again, whatever the case.
    pub(super) fn key(&self) -> String {
        self.id().to_ascii_lowercase()
    }

    /// The resource id.
    pub(super) fn id(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ContainerInstance/containerGroups/{}",
            self.subscription, self.resource_group, self.name
        )
    }
}

/// What a URL asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Group(GroupPath),
    /// `start`, `stop` or `restart`.
    Action(GroupPath, String),
    Logs(GroupPath, String),
    List {
        subscription: String,
        resource_group: Option<String>,
    },
    Operation(String),
    Usages {
        subscription: String,
        location: String,
    },
}

pub(super) fn parse(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (subscription, rest) = match parts.as_slice() {
        [word, subscription, rest @ ..] if is(word, "subscriptions") => (*subscription, rest),
        _ => return None,
    };
    let subscription = subscription.to_owned();
    let (resource_group, rest) = match rest {
        [word, name, rest @ ..] if is(word, "resourceGroups") => (Some((*name).to_owned()), rest),
        rest => (None, rest),
    };
    let [providers, provider, rest @ ..] = rest else {
        return None;
    };
    if !is(providers, "providers") || !is(provider, "Microsoft.ContainerInstance") {
        return None;
    }
    if let ([word, location, what, rest @ ..], None) = (rest, &resource_group)
        && is(word, "locations")
    {
        let location = (*location).to_owned();
        return match rest {
            [id] if is(what, "operations") => Some(Target::Operation((*id).to_owned())),
            [] if is(what, "usages") => Some(Target::Usages {
                subscription,
                location,
            }),
            _ => None,
        };
    }
    let [word, rest @ ..] = rest else {
        return None;
    };
    if !is(word, "containerGroups") {
        return None;
    }
    let [name, rest @ ..] = rest else {
        return Some(Target::List {
            subscription,
            resource_group,
        });
    };
    let group = GroupPath {
        subscription,
        resource_group: resource_group?,
        name: (*name).to_owned(),
    };
    match rest {
        [] => Some(Target::Group(group)),
        [action]
            if ["start", "stop", "restart"]
                .iter()
                .any(|verb| is(action, verb)) =>
        {
            Some(Target::Action(group, action.to_ascii_lowercase()))
        }
        [containers, container, logs] if is(containers, "containers") && is(logs, "logs") => {
            Some(Target::Logs(group, (*container).to_owned()))
        }
        _ => None,
    }
}

fn is(part: &str, word: &str) -> bool {
    part.eq_ignore_ascii_case(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_whatever_its_case() {
        let group = GroupPath {
            subscription: "s".into(),
            resource_group: "g".into(),
            name: "vpn".into(),
        };
        let path = group.id().replace("resourceGroups", "resourcegroups");
        assert_eq!(parse(&path), Some(Target::Group(group.clone())));
        assert_eq!(
            parse(&format!("{path}/RESTART")),
            Some(Target::Action(group.clone(), "restart".into()))
        );
        assert_eq!(
            parse(&format!("{path}/containers/c/logs")),
            Some(Target::Logs(group, "c".into()))
        );
    }

    #[test]
    fn paths_of_other_providers_are_nobodys() {
        for path in [
            "/",
            "/subscriptions/s",
            "/subscriptions/s/providers/Microsoft.Web/sites",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
