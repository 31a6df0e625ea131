//! The program is killed at any moment of its renewals.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use super::*;

#[test]
fn a_kill_at_any_moment_leaves_the_old_or_the_new_certificate() {
    let kills = endpoint_tests::count(20, 200);
    let mut seed = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut seed).unwrap();
    let seed = u64::from_le_bytes(seed);
    println!("seed {seed}");
    let mut random = seed | 1;
    let name = "a.example";
    let material = Material::new(&[name], 2);
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path(), true);
    must(program("import", &state, NOW, &[&material.cert(0), &material.key(0)]));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut renewals = 0;
    let start: Timestamp = LATER.parse().unwrap();
    for turn in 0..kills {
        // The time moves on by a day for each turn, so that locks of the dead are over.
        let now = start + jiff::SignedDuration::from_hours(24 * i64::try_from(turn).unwrap());
        let pairs = [material.cert(0), material.key(0), material.cert(1), material.key(1)];
        let mut rest = vec![Path::new(name)];
        rest.extend(pairs.iter().map(PathBuf::as_path));
        let mut command = program("renew-for-ever", &state, &now.to_string(), &rest);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().is_some(), "seed {seed}, turn {turn}: it ended by itself");
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((random >> 33) % 60_000));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code().is_none(), "seed {seed}, turn {turn}: {said}");
        renewals += 1 + lines.count();
        let found = runtime.block_on(served(&state, name));
        let good = [Ok(Some(material.pem(0))), Ok(Some(material.pem(1)))];
        assert!(good.contains(&found), "seed {seed}, turn {turn}: {found:?}");
        let wrongs = exposed(&state, &material);
        assert!(wrongs.is_empty(), "seed {seed}, turn {turn}: {wrongs:?}");
    }
    println!(
        "acceptance: {kills} kill -9 in {renewals} renewals: 0 lost, 0 corrupt, every restart serves"
    );
}
