//! The status page in a browser: it lives, it complains of nothing, and everybody can use it.

use std::{path::Path, process::Stdio};

use endpoint_tests::machine::{Machine, Running, Server};
use serde_json::{Value, json};

use crate::{browser::Browser, machine};

/// An endpoint with a peer that it lets in and a stranger that it does not.
struct Scene {
    server: Server,
    machine: Machine,
    peer: Machine,
    stranger: Machine,
    url: String,
}

impl Scene {
    fn start() -> Self {
        let [machine, peer, stranger] = std::array::from_fn(|_| machine());
        machine.json(&["trust", "add", &peer.fingerprint(), "--option", "name=bob"]);
        let server = machine.serve();
        let url = server.ready["urls"].as_array().unwrap().last().unwrap();
        let url = url.as_str().unwrap().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        Self { server, machine, peer, stranger, url }
    }

    /// A connection of the peer that stays.
    fn held(&self) -> Running {
        let mut command = self.peer.command(&["dial", &self.server.peer(), "--alpn", "echo/1"]);
        command.stdin(Stdio::piped());
        let mut running = Running::start(command);
        running.write(b"hello\n");
        assert_eq!(running.line().as_deref(), Some("hello"), "{running:?}");
        running
    }

    /// A try of the stranger; its key.
    fn refused(&self) -> String {
        let said = self.stranger.run(&["ping", &self.server.peer(), "-c", "1"]);
        assert_ne!(said.code(), 0, "{said:?}");
        self.stranger.fingerprint()
    }
}

fn assert_quiet(browser: &Browser, url: &str) {
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
    let requested = browser.requested();
    assert!(requested.iter().any(|asked| asked == url), "{requested:?}");
    let own = |asked: &String| {
        asked.starts_with(url) || asked.starts_with("data:") || asked == "about:blank"
    };
    assert!(requested.iter().all(own), "{requested:?}");
}

#[test]
fn follows_what_happens_without_a_complaint_and_without_a_foreign_address() {
    let scene = Scene::start();
    let mut browser = Browser::start(&[]);
    browser.open(&scene.url);
    // From now on it hears events.
    browser.until("performance.getEntriesByType('resource').some((e) => e.name.endsWith('.json'))");
    browser.until("document.getElementById('events-none').checkVisibility()");
    assert_eq!(browser.value("document.getElementById('count').textContent"), "0");
    assert_eq!(browser.value("document.getElementById('state').textContent"), "running");
    let rounds = endpoint_tests::count(2, 20);
    for round in 1..=rounds {
        let held = scene.held();
        browser.until("document.getElementById('count').textContent === '1'");
        let row = "[...document.querySelectorAll('#connections td')].map((c) => c.textContent)";
        let row = browser.value(row);
        let cells: Vec<&str> = row.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(cells[..3], ["bob", "echo/1", "raw+raw"], "{row}");
        assert!(cells[3].starts_with("127.0.0.1:") && cells[4].ends_with(" ms"), "{row}");
        browser.until(&format!("document.getElementById('total').textContent === '{round}'"));
        assert_eq!(held.end().code(), 0);
        browser.until("document.getElementById('count').textContent === '0'");
        browser.until("!document.getElementById('connections-table').checkVisibility()");
        let events = |what: &str| {
            format!(
                "[...document.querySelectorAll('#events b')].filter((b) => b.textContent === '{what}').length \
                 === {round}"
            )
        };
        browser.until(&events("connected"));
        browser.until(&events("disconnected"));
    }
    browser.until("document.getElementById('bytes').textContent.endsWith('B')");
    // A key that was refused appears with the command that lets it in.
    let key = scene.refused();
    browser.until("document.querySelector('#refusals button')");
    let command = browser.value("document.querySelector('#refusals button').dataset.copy");
    let state = scene.machine.state();
    let expected = format!("endpoint --state {} trust add {key}", state.display());
    assert_eq!(command, expected.as_str());
    scene.machine.json(&["trust", "add", &key]);
    assert_eq!(scene.stranger.run(&["ping", &scene.server.peer(), "-c", "1"]).code(), 0);
    let text = browser.value("document.getElementById('events').textContent");
    assert!(!text.as_str().unwrap().contains("[object"), "{text}");
    assert_quiet(&browser, &scene.url);
    println!(
        "acceptance: status page: {rounds} connections came and went in Chromium, 0 complaints"
    );
}

/// Gathers what the focused button and the line for screen readers say, however shortly they do.
const WATCH: &str = r"(() => {
  window.told = [];
  for (const element of [document.activeElement, document.getElementById('said')])
    new MutationObserver(() => told.push(element.textContent)).observe(element, { childList: true });
})()";

#[test]
fn is_used_by_keyboard_alone() {
    let scene = Scene::start();
    let mut browser = Browser::start(&[]);
    let origin = scene.url.trim_end_matches('/');
    let allowed =
        json!({"origin": origin, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]});
    browser.open(&scene.url);
    browser.call("Browser.grantPermissions", allowed);
    browser.call("Page.bringToFront", json!({}));
    let ready = &scene.server.ready;
    let focused = "document.activeElement.dataset.what";
    let label = "document.activeElement.textContent";
    for (what, value, key) in [
        ("fingerprint", &ready["fingerprint"], ("Enter", 13, "\r")),
        ("peer address", &ready["peer"], (" ", 32, " ")),
    ] {
        browser.press("Tab", 9, "");
        assert_eq!(browser.value(focused), what, "the copy buttons come first");
        assert_eq!(browser.value("document.activeElement.matches(':focus-visible')"), true);
        let outline = browser.value("getComputedStyle(document.activeElement).outlineStyle");
        assert_eq!(outline, "solid");
        assert_eq!(browser.value(label), "Copy");
        browser.value(WATCH);
        // Twice, quickly: the label comes back all the same.
        browser.press(key.0, key.1, key.2);
        browser.press(key.0, key.1, key.2);
        browser.until("told.includes('Copied')");
        // Screen readers are told.
        browser.until(&format!("told.includes('{what} copied')"));
        assert_eq!(&browser.value("navigator.clipboard.readText()"), value);
        browser.until(&format!("{label} === 'Copy'"));
        assert_eq!(browser.value(focused), what, "the focus stays");
    }
    assert_quiet(&browser, &scene.url);
}

#[test]
fn says_everything_at_first_sight_without_a_script() {
    let scene = Scene::start();
    let held = scene.held();
    let key = scene.refused();
    let mut browser = Browser::start(&[]);
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": true}));
    browser.open(&scene.url);
    let text = browser.value("document.body.innerText");
    let text = text.as_str().unwrap();
    let ready = &scene.server.ready;
    let listening = scene.server.address();
    let words = [
        ready["fingerprint"].as_str().unwrap(),
        ready["peer"].as_str().unwrap(),
        &listening,
        "bob",
        "echo/1",
        " ms",
        &key,
        "localhost",
        "self-signed",
        "need a script",
    ];
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(browser.value("document.getElementById('count').textContent"), "1");
    let shown = |id: &str| format!("document.getElementById('{id}').checkVisibility()");
    for (id, visible) in [("connections-table", true), ("bytes", false), ("events-none", false)] {
        assert_eq!(browser.value(&shown(id)), visible, "{id}");
    }
    assert!(!browser.requested().iter().any(|url| url.ends_with(".json")), "no script ran");
    assert_quiet(&browser, &scene.url);
    drop(held);
}

/// Colours of a picture, and the share of the most frequent one.
const COLOURS: &str = r"(async () => {
  const image = new Image();
  image.src = PICTURE;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height);
  const paint = canvas.getContext('2d');
  paint.drawImage(image, 0, 0);
  const counts = new Map();
  for (const pixel of new Uint32Array(paint.getImageData(0, 0, image.width, image.height).data.buffer))
    counts.set(pixel, (counts.get(pixel) || 0) + 1);
  return [counts.size, Math.max(...counts.values()) / (image.width * image.height)];
})()";

/// The least contrast of any text with what is behind it (WCAG 2.2, 1.4.3).
const CONTRAST: &str = r"(() => {
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return parts(colour)[3] === 0 ? behind(element.parentElement) : colour;
  };
  const texts = [...document.querySelectorAll('body *')].filter((element) => element.checkVisibility()
    && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return Math.min(...texts.map((element) => {
    const pair = [light(getComputedStyle(element).color), light(behind(element))];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  }));
})()";

#[test]
fn is_readable_by_day_by_night_and_on_a_telephone() {
    let scene = Scene::start();
    let held = scene.held();
    scene.refused();
    let mut browser = Browser::start(&[]);
    browser.call("Emulation.setScrollbarsHidden", json!({"hidden": true}));
    let mut backgrounds = Vec::new();
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 390)] {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        browser.call("Emulation.setDeviceMetricsOverride", size);
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.call("Emulation.setEmulatedMedia", media);
        browser.open(&scene.url);
        // Two looks: the rates have their first points.
        browser.until("document.getElementById('bytes').textContent !== '–'");
        backgrounds.push(browser.value("getComputedStyle(document.body).backgroundColor"));
        let least = browser.value(CONTRAST).as_f64().unwrap();
        assert!(least >= 4.5, "{scheme}: {least}");
        let wider =
            browser.value("document.documentElement.scrollWidth - innerWidth").as_i64().unwrap();
        assert!(wider <= 0, "{scheme} {width}: the page is {wider} pixels too wide");
        let cut = "[...document.querySelectorAll('section')].filter((s) => s.scrollWidth > s.clientWidth)\
                   .map((s) => s.textContent)";
        assert_eq!(browser.value(cut), json!([]), "{scheme}: cut off");
        let name = format!("status-page-{scheme}-{width}.png");
        let picture = browser.picture(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        let data = data_encoding::BASE64.encode(&picture);
        let colours = COLOURS.replace("PICTURE", &format!("'data:image/png;base64,{data}'"));
        let colours = browser.value(&colours);
        let (count, most) = (colours[0].as_u64().unwrap(), colours[1].as_f64().unwrap());
        assert!(count > 50 && most < 0.95, "{scheme} {width}: blank: {colours}");
    }
    assert_ne!(backgrounds[0], backgrounds[1]);
    assert_quiet(&browser, &scene.url);
    drop(held);
}
