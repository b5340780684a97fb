use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::Arc;

use super::*;

const NAME: &str = "config.json";

fn store() -> (tempfile::TempDir, DirectoryStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(directory.path().join("state")).unwrap();
    (directory, store)
}

async fn increment(store: &DirectoryStore) {
    loop {
        let stored = store.read(Container::Control, NAME).await.unwrap();
        let (count, expect) = match stored {
            None => (0, Expect::Absent),
            Some(stored) => {
                let text = String::from_utf8(stored.bytes).unwrap();
                (
                    text.parse::<u32>().unwrap(),
                    Expect::Version(stored.version),
                )
            }
        };
        let bytes = (count + 1).to_string();
        match store
            .write(Container::Control, NAME, bytes.as_bytes(), &expect)
            .await
        {
            Ok(_) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn count(store: &DirectoryStore) -> u32 {
    let stored = store.read(Container::Control, NAME).await.unwrap().unwrap();
    String::from_utf8(stored.bytes).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_document_comes_back_byte_for_byte_with_its_version() {
    let (_directory, store) = store();
    assert!(
        store
            .read(Container::Control, NAME)
            .await
            .unwrap()
            .is_none()
    );
    let bytes = b"version: x\n\r\n\0\xff trailing \n";
    let version = store
        .write(Container::Control, NAME, bytes, &Expect::Absent)
        .await
        .unwrap();
    let stored = store.read(Container::Control, NAME).await.unwrap().unwrap();
    assert_eq!(
        (stored.bytes.as_slice(), stored.version),
        (&bytes[..], version)
    );
}

#[tokio::test]
async fn the_second_of_two_writers_that_read_the_same_version_fails() {
    let (_directory, store) = store();
    let first = store
        .write(Container::Control, NAME, b"1", &Expect::Absent)
        .await
        .unwrap();
    let expect = Expect::Version(first);
    store
        .write(Container::Control, NAME, b"2", &expect)
        .await
        .unwrap();
    let error = store
        .write(Container::Control, NAME, b"3", &expect)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert_eq!(
        store
            .read(Container::Control, NAME)
            .await
            .unwrap()
            .unwrap()
            .bytes,
        b"2"
    );
}

#[tokio::test]
async fn writing_the_same_bytes_again_makes_a_new_version() {
    let (_directory, store) = store();
    let first = store
        .write(Container::Control, NAME, b"1", &Expect::Absent)
        .await
        .unwrap();
    let again = Expect::Version(first.clone());
    assert_ne!(
        store
            .write(Container::Control, NAME, b"1", &again)
            .await
            .unwrap(),
        first
    );
}

#[tokio::test]
async fn create_only_fails_where_something_is() {
    let (_directory, store) = store();
    store
        .write(Container::Keys, "private.key", b"1", &Expect::Absent)
        .await
        .unwrap();
    let error = store
        .write(Container::Keys, "private.key", b"2", &Expect::Absent)
        .await;
    assert!(matches!(error, Err(StoreError::Conflict { .. })));
    let (_directory, empty) = self::store();
    let gone = Expect::Version(Version("0".repeat(32)));
    let error = empty.write(Container::Control, NAME, b"1", &gone).await;
    assert!(
        matches!(error, Err(StoreError::Conflict { .. })),
        "an update must not create"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_increment_of_fifty_concurrent_ones_is_lost() {
    let (_directory, store) = store();
    let store = Arc::new(store);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { increment(&store).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(count(&store).await, 50);
}

const WORKER_ROOT: &str = "POPUP_STORE_TEST_ROOT";

/// Does nothing by itself: the next test runs it in processes of their own.
#[tokio::test]
async fn worker_process() {
    if let Some(root) = std::env::var_os(WORKER_ROOT) {
        let store = DirectoryStore::open(PathBuf::from(root)).unwrap();
        for _ in 0..10 {
            increment(&store).await;
        }
    }
}

#[tokio::test]
async fn no_increment_of_several_processes_is_lost() {
    let (_directory, store) = store();
    let mut workers: Vec<_> = (0..4)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "directory::tests::worker_process"])
                .env(WORKER_ROOT, store.root())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for worker in &mut workers {
        assert!(worker.wait().unwrap().success());
    }
    assert_eq!(count(&store).await, 40);
}

#[tokio::test]
async fn nobody_else_can_read_anything() {
    let (_directory, store) = store();
    store
        .write(Container::Keys, "private.key", b"secret", &Expect::Absent)
        .await
        .unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(store.root().to_owned()), 0o700);
    for container in CONTAINERS {
        assert_eq!(mode(store.root().join(container.name())), 0o700);
    }
    assert_eq!(mode(store.root().join("keys/private.key")), 0o600);
    assert_eq!(mode(store.root().join("keys/.lock")), 0o600);
    let loose = store.root().join("keys");
    fs::set_permissions(&loose, Permissions::from_mode(0o755)).unwrap();
    DirectoryStore::open(store.root()).unwrap();
    assert_eq!(mode(loose), 0o700, "a loose container is closed again");
}

#[tokio::test]
async fn what_a_crash_left_behind_is_neither_read_nor_in_the_way() {
    let (_directory, store) = store();
    let leftover = store.root().join("control/.config.json.tmp");
    fs::write(&leftover, "version: half").unwrap();
    assert!(
        store
            .read(Container::Control, NAME)
            .await
            .unwrap()
            .is_none()
    );
    store
        .write(Container::Control, NAME, b"1", &Expect::Absent)
        .await
        .unwrap();
    assert!(!leftover.exists());
    let left: Vec<_> = fs::read_dir(store.root().join("control"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 2, "the document and the lock");
}

#[tokio::test]
async fn a_file_without_its_version_line_is_an_error_that_says_so() {
    let (_directory, store) = store();
    let path = store.root().join("control/config.json");
    for text in [
        "{}",
        "",
        "version: \n",
        "version: ABCDEF0123456789abcdef0123456789\n{}",
    ] {
        fs::write(&path, text).unwrap();
        let error = store
            .read(Container::Control, NAME)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("control/config.json") && error.contains("version line"),
            "{error}"
        );
        let write = store
            .write(Container::Control, NAME, b"1", &Expect::Absent)
            .await;
        assert!(
            matches!(write, Err(StoreError::Unavailable { .. })),
            "it is not overwritten"
        );
    }
}

#[tokio::test]
async fn oversized_documents_are_neither_read_nor_written() {
    let (_directory, store) = store();
    let large = vec![b' '; MAX_DOCUMENT_BYTES + 1];
    assert!(
        store
            .write(Container::Control, NAME, &large, &Expect::Absent)
            .await
            .is_err()
    );
    store
        .write(Container::Control, NAME, &large[1..], &Expect::Absent)
        .await
        .unwrap();
    let mut file = OpenOptions::new()
        .append(true)
        .open(store.root().join("control").join(NAME))
        .unwrap();
    file.write_all(b" ").unwrap();
    let error = store.read(Container::Control, NAME).await.unwrap_err();
    assert!(error.to_string().contains("larger"), "{error}");
}

#[tokio::test]
async fn a_name_that_is_a_path_reaches_no_file() {
    let (_directory, store) = store();
    for name in ["", ".", "..", "../x", "a/b", "/etc/passwd", ".lock", "a\0b"] {
        assert!(
            store.read(Container::Control, name).await.is_err(),
            "{name:?}"
        );
        let write = store
            .write(Container::Control, name, b"1", &Expect::Absent)
            .await;
        assert!(write.is_err(), "{name:?}");
    }
}
