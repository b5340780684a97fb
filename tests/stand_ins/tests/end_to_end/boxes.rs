//! The machines around the cloud: an internet and clients.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tempfile::TempDir;

use crate::cloud::{Azure, SERVICES};
use crate::namespace::{Finished, Namespace};

/// What the internet's web server says.
pub const GREETING: &str = "hello from the internet";
/// Its name.
pub const NAME: &str = "www.internet.test";
/// Its address.
pub const ADDRESS: &str = "198.51.100.10";

/// What Azure has for its machines alone: instance metadata, a neighbour of it, and Azure's own
/// services. The internet's web server answers there as well: on Azure these are outside the
/// container, and what it sends to them arrives. The first is an address of the simulated container
/// itself, too, and so closed twice; the neighbour is closed by the policy alone.
pub const PLATFORM: [&str; 3] = ["169.254.169.254", "169.254.169.253", "168.63.129.16"];

/// A web server behind Azure's router.
pub struct Internet {
    _namespace: Namespace,
}

impl Internet {
    pub fn new(azure: &Azure) -> Self {
        let namespace = Namespace::new("ip link set lo up");
        azure.namespace.connect("internet", &namespace, "azure");
        azure
            .namespace
            .shell("ip address add 198.51.100.1/25 dev internet; ip link set internet up");
        namespace.shell(&format!(
            "ip address add {ADDRESS}/25 dev azure; ip link set azure up
             ip route add default via 198.51.100.1"
        ));
        for address in PLATFORM {
            namespace.shell(&format!("ip address add {address}/32 dev lo"));
            azure
                .namespace
                .shell(&format!("ip route add {address} via {ADDRESS}"));
        }
        let listener = namespace.enter(|| TcpListener::bind(("0.0.0.0", 80)).unwrap());
        // Ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let _ = stream.read(&mut [0; 4096]);
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
                let _ = write!(stream, "{head} {}\r\n\r\n{GREETING}", GREETING.len());
            }
        });
        Self {
            _namespace: namespace,
        }
    }
}

/// A machine with `wg-quick`, on a network of its own.
pub struct Client {
    namespace: Namespace,
    directory: TempDir,
}

impl Client {
    /// The client with this number; numbers are used once.
    pub fn new(azure: &Azure, number: u8) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("popup-client-")
            .tempdir()
            .unwrap();
        let resolv = directory.path().join("resolv.conf");
        fs::write(&resolv, format!("nameserver {SERVICES}\n")).unwrap();
        let namespace = Namespace::new(&format!(
            "ip link set lo up
             mkdir -p /run/wireguard /run/resolvconf
             mount --bind '{}' \"$(readlink -f /etc/resolv.conf)\"
             mount -t tmpfs tmpfs /run/wireguard
             mount -t tmpfs tmpfs /run/resolvconf",
            resolv.display()
        ));
        let port = format!("client{number}");
        azure.namespace.connect(&port, &namespace, "wan");
        let (router, own) = (128 + 4 * number + 1, 128 + 4 * number + 2);
        azure.namespace.shell(&format!(
            "ip address add 198.51.100.{router}/30 dev {port}; ip link set {port} up"
        ));
        namespace.shell(&format!(
            "ip address add 198.51.100.{own}/30 dev wan; ip link set wan up
             ip route add default via 198.51.100.{router}"
        ));
        Self {
            namespace,
            directory,
        }
    }

    /// `wg-quick up ./popup.conf`, with the file as it is.
    pub fn up(&self, conf: &str) {
        let file = self.directory.path().join("popup.conf");
        fs::write(&file, conf).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        self.wg_quick("up");
    }

    pub fn down(&self) {
        self.wg_quick("down");
    }

    fn wg_quick(&self, verb: &str) {
        let directory = self.directory.path().display();
        let script = format!(
            "cd '{directory}' && wg-quick {verb} ./popup.conf </dev/null >wg-quick.log 2>&1 || {{ cat wg-quick.log; exit 1; }}"
        );
        let finished = self
            .namespace
            .run(Duration::from_secs(30), &["sh", "-c", &script]);
        finished.expect("wg-quick");
    }

    pub fn curl(&self, patience_s: u64, url: &str) -> Finished {
        let arguments = [
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "*",
            url,
        ];
        self.namespace
            .run(Duration::from_secs(patience_s), &arguments)
    }

    /// What a web server at one of the platform's addresses answers to a request for a token, with
    /// curl's exit code.
    pub fn asks_the_platform(&self, address: &str) -> (String, Option<i32>) {
        let query = "api-version=2018-02-01&resource=https://storage.azure.com";
        let url = format!("http://{address}/metadata/identity/oauth2/token?{query}");
        let arguments = [
            "curl",
            "--silent",
            "--noproxy",
            "*",
            "--max-time",
            "5",
            "--header",
            "Metadata: true",
            &url,
        ];
        let finished = self.namespace.run(Duration::from_secs(10), &arguments);
        (finished.stdout(), finished.output.status.code())
    }

    /// Asserts that the internet can be used by name.
    #[track_caller]
    pub fn browses(&self) {
        let answer = self
            .curl(20, &format!("http://{NAME}/"))
            .expect("the internet answers");
        assert_eq!(answer.stdout(), GREETING);
    }
}
