//! A web page from elsewhere has no say.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use crate::lab::{Handler, Lab, Settings};

/// Where the hostile page comes from, on the same machine as the handler.
const PAGE: u16 = 8099;

/// Another origin, without any defence: what arrives here could have arrived at the handler.
const DEFENCELESS: u16 = 8098;

/// Posts in every way that a page can without asking first, to the handler and to the
/// defenceless service, and then reports that it has finished.
const HOSTILE: &str = r#"<!doctype html><body><script>
const tries = [];
for (const port of [HANDLER, DEFENCELESS]) {
  const at = path => `http://127.0.0.1:${port}/api/${path}`;
  for (const path of ["start-vpn", "stop-vpn"]) {
    tries.push(fetch(at(path), {method: "POST", mode: "no-cors"}));
    tries.push(fetch(at(path), {method: "POST", mode: "no-cors", body: "{}", headers: {"Content-Type": "text/plain"}}));
    tries.push(fetch(at(path), {method: "POST", body: "{}", headers: {"Content-Type": "application/json"}}));
    navigator.sendBeacon(at(path), new Blob(["{}"], {type: "text/plain"}));
    const frame = document.createElement("iframe");
    frame.name = path + port;
    document.body.append(frame);
    const form = document.createElement("form");
    form.method = "POST"; form.action = at(path); form.target = frame.name; form.enctype = "text/plain";
    document.body.append(form);
    tries.push(new Promise(done => { frame.onload = done; setTimeout(done, 3000); form.submit(); }));
  }
}
Promise.allSettled(tries).then(() => fetch("/finished"));
</script>"#;

/// Serves `body` and tells of every request line.
fn serve(listener: TcpListener, body: String, tell: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (tell, body) = (tell.clone(), body.clone());
            std::thread::spawn(move || answer(stream, &body, &tell));
        }
    });
}

fn answer(stream: TcpStream, body: &str, tell: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    reader.read_line(&mut request).ok();
    tell.send(request.trim().to_owned()).ok();
    let mut stream = stream;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).ok();
    stream.shutdown(std::net::Shutdown::Write).ok();
    reader.read_to_end(&mut Vec::new()).ok();
}

fn browser() -> String {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var("PATH").unwrap_or_default();
    let found = names.iter().find(|name| {
        path.split(':')
            .any(|dir| std::path::Path::new(dir).join(name).exists())
    });
    (*found
        .expect("this test needs a browser that `make test` installs (apt-get install chromium)"))
    .to_owned()
}

#[test]
fn a_page_of_another_origin_can_neither_start_nor_stop_the_vpn() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let browser = browser();
    for running in [false, true] {
        if running {
            handler.add_peer("phone");
        }
        let before = handler.status();
        visit_hostile_page(&lab, &browser, running);
        let after = handler.status();
        for field in ["state", "leaseId", "startedAt", "lastStop"] {
            assert_eq!(before[field], after[field], "{field}: {after:#}");
        }
        assert_eq!(
            before["peers"].as_array().map(Vec::len),
            after["peers"].as_array().map(Vec::len)
        );
    }
}

fn visit_hostile_page(lab: &Lab, browser: &str, again: bool) {
    let bind = |port| {
        lab.host
            .namespace
            .enter(|| TcpListener::bind(("127.0.0.1", port + 10 * u16::from(again))).unwrap())
    };
    let (page, defenceless) = (bind(PAGE), bind(DEFENCELESS));
    let at = page.local_addr().unwrap();
    let ports = [
        ("HANDLER", Handler::PORT),
        ("DEFENCELESS", defenceless.local_addr().unwrap().port()),
    ];
    let text = ports.iter().fold(HOSTILE.to_owned(), |text, (name, port)| {
        text.replace(name, &port.to_string())
    });
    let (tell, told) = mpsc::channel();
    let (tell_hit, hits) = mpsc::channel();
    serve(page, text, tell);
    serve(defenceless, String::new(), tell_hit);

    let profile = lab.host.directory().join(format!("profile-{again}"));
    let mut command = lab.host.namespace.command("env");
    command
        .arg(format!("HOME={}", lab.host.directory().display()))
        .arg(browser);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
    ]);
    command.args([
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
    ]);
    command.args(["--disable-sync", "--remote-debugging-port=0"]);
    command
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://{at}/"));
    let log = std::fs::File::create(lab.host.directory().join("browser.log")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let mut process = command.spawn().unwrap();
    let finished = std::iter::from_fn(|| told.recv_timeout(Duration::from_secs(60)).ok())
        .any(|request| request.contains("/finished"));
    for name in [browser, "chrome", "nsenter"] {
        for pid in lab.host.namespace.processes(name) {
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
                rustix::process::Signal::KILL,
            )
            .ok();
        }
    }
    process.wait().ok();
    assert!(
        finished,
        "{}",
        std::fs::read_to_string(lab.host.directory().join("browser.log")).unwrap_or_default()
    );
    let posts = hits
        .try_iter()
        .filter(|request| request.starts_with("POST /api/"))
        .count();
    assert!(
        posts >= 4,
        "the page can post where nobody defends himself: {posts}"
    );
}
