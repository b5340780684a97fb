//! A store in memory that can be made to fail.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use popup_store::{Container, DocumentStore, Expect, StoreError, Stored, Version};

type Key = (Container, String);

/// What another writer makes of a document.
type Change = Box<dyn FnOnce(&[u8]) -> Vec<u8> + Send>;

/// Another writer, who gets in between a read and a write.
struct Intrusion {
    /// How many writes come before.
    after: usize,
    /// Whether the write that meets it is done first.
    overtakes: bool,
    change: Change,
}

impl fmt::Debug for Intrusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intrusion(after {})", self.after)
    }
}

/// Documents in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    documents: HashMap<Key, (u64, Vec<u8>)>,
    versions: u64,
    writes: usize,
    /// From which write on writes fail.
    writes_fail_from: Option<usize>,
    /// The write that is done without anybody being told.
    lost_answer: Option<usize>,
    intrusion: Option<Intrusion>,
    reads_fail: bool,
    silent: bool,
}

impl MemoryStore {
    /// Lets `successes` more writes through and fails those after them; `None` heals.
    pub fn fail_writes_after(&self, successes: Option<usize>) {
        let mut state = self.state();
        state.writes_fail_from = successes.map(|successes| state.writes + successes);
    }

    /// Does the write after `successes` more ones, and fails it.
    pub fn lose_answer_after(&self, successes: usize) {
        let mut state = self.state();
        state.lost_answer = Some(state.writes + successes);
    }

    /// Lets another writer change the document of the first write to `control` after `successes`
    /// more ones of any kind, right before it.
    pub fn intrude_after(
        &self,
        successes: usize,
        change: impl FnOnce(&[u8]) -> Vec<u8> + Send + 'static,
    ) {
        self.set_intrusion(successes, false, Box::new(change));
    }

    /// The same right after that write, which is answered as if it had come too late.
    pub fn overtake_after(
        &self,
        successes: usize,
        change: impl FnOnce(&[u8]) -> Vec<u8> + Send + 'static,
    ) {
        self.set_intrusion(successes, true, Box::new(change));
    }

    fn set_intrusion(&self, successes: usize, overtakes: bool, change: Change) {
        let mut state = self.state();
        let after = state.writes + successes;
        state.intrusion = Some(Intrusion {
            after,
            overtakes,
            change,
        });
    }

    /// Whether reads fail.
    pub fn fail_reads(&self, fail: bool) {
        self.state().reads_fail = fail;
    }

    /// Whether nothing is answered, until this is taken back.
    pub fn set_silent(&self, silent: bool) {
        self.state().silent = silent;
    }

    async fn answers(&self) {
        tokio::task::yield_now().await;
        while self.state().silent {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// How many writes have been tried and not refused for a conflict.
    pub fn writes(&self) -> usize {
        self.state().writes
    }

    /// Everything that is stored.
    pub fn content(&self) -> HashMap<(&'static str, String), Vec<u8>> {
        let state = self.state();
        let documents = state.documents.iter();
        documents
            .map(|((c, name), (_, bytes))| ((c.name(), name.clone()), bytes.clone()))
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(operation: &'static str, container: Container, name: &str) -> StoreError {
    let (container, name) = (container.name(), name.to_owned());
    StoreError::Unavailable {
        operation,
        container,
        name,
        source: "injected".into(),
    }
}

#[async_trait]
impl DocumentStore for MemoryStore {
    async fn read(&self, container: Container, name: &str) -> Result<Option<Stored>, StoreError> {
        self.answers().await;
        let state = self.state();
        if state.reads_fail {
            return Err(unavailable("read", container, name));
        }
        let found = state.documents.get(&(container, name.to_owned()));
        Ok(found.map(|(version, bytes)| Stored {
            bytes: bytes.clone(),
            version: Version::from_text(version.to_string()),
        }))
    }

    async fn write(
        &self,
        container: Container,
        name: &str,
        bytes: &[u8],
        expect: &Expect,
    ) -> Result<Version, StoreError> {
        self.answers().await;
        let mut state = self.state();
        let key = (container, name.to_owned());
        let writes = state.writes;
        let meets = |intrusion: &mut Intrusion| {
            container == Container::Control && writes >= intrusion.after
        };
        if let Some(intrusion) = state.intrusion.take_if(meets) {
            state.versions += 1;
            let version = state.versions;
            let before = match intrusion.overtakes {
                true => bytes,
                false => {
                    let found = state.documents.get(&key);
                    found.map(|(_, bytes)| bytes.as_slice()).unwrap_or_default()
                }
            };
            let after = (intrusion.change)(before);
            state.documents.insert(key.clone(), (version, after));
        }
        let found = state
            .documents
            .get(&key)
            .map(|(v, _)| Version::from_text(v.to_string()));
        let as_expected = match expect {
            Expect::Absent => found.is_none(),
            Expect::Version(version) => found.as_ref() == Some(version),
        };
        if !as_expected {
            let (container, name) = (container.name(), name.to_owned());
            return Err(StoreError::Conflict { container, name });
        }
        if state
            .writes_fail_from
            .is_some_and(|from| state.writes >= from)
        {
            return Err(unavailable("write", container, name));
        }
        let lost = state.lost_answer == Some(state.writes);
        state.writes += 1;
        state.versions += 1;
        let version = state.versions;
        state.documents.insert(key, (version, bytes.to_vec()));
        if lost {
            return Err(unavailable("write", container, name));
        }
        Ok(Version::from_text(version.to_string()))
    }
}
