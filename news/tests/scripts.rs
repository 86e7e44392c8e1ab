//! What the scripts refuse, each against a real Redis.

mod servers;

use servers::Server;

const PUT: &str = include_str!("../src/lua/put.lua");
const META: &str = "{t}:meta";
const PULSE: &str = "{t}:pulse";
const GATEWAYS: &str = "{t}:gateways";
const ENTRIES: &str = "{t}:e1:entries";
const EXPIRY: &str = "{t}:e1:expiry";
const STREAM: &str = "{t}:e1:stream";

/// Runs a script and gives its reply on one line.
fn run(server: &Server, script: &str, keys: &[&str], arguments: &[&str]) -> String {
    let count = keys.len().to_string();
    let words = [&["EVAL", script, &count], keys, arguments].concat();
    let reply = server.ask(&words);
    assert!(!reply.starts_with('-'), "{reply}");
    let plain = |line: &&str| !line.starts_with(['*', '$']) || *line == "$-1";
    let words: Vec<&str> = reply.lines().filter(plain).collect();
    words.join(" ")
}

fn publish(server: &Server, arguments: &[&str]) -> String {
    let script = format!("{PUT}{}", include_str!("../src/lua/publish.lua"));
    run(server, &script, &[META, ENTRIES, EXPIRY, STREAM], arguments)
}

fn begin(server: &Server, publisher: &str) -> String {
    run(
        server,
        include_str!("../src/lua/begin.lua"),
        &[META, PULSE],
        &[publisher],
    )
}

fn attest(server: &Server, arguments: &[&str]) -> String {
    run(
        server,
        include_str!("../src/lua/attest.lua"),
        &[META, PULSE, ENTRIES],
        arguments,
    )
}

fn epoch_at(server: &Server, head: &str) {
    server.ask(&[
        "HSET", META, "epoch", "e1", "log", "l1", "head", head, "count", "0",
    ]);
}

fn row(sequence: u64, user: &str, value: u64, end: &str) -> String {
    format!("[\"r\",{sequence},\"i\",\"user\",\"{user}\",\"epoch_below\",{value},{end}]")
}

/// An entry's end as the scripts take it.
fn end_of(entry: &str) -> &str {
    let end = entry.trim_end_matches(']').rsplit(',').next().unwrap();
    if end == "null" { "" } else { end }
}

#[test]
fn a_batch_is_appended_only_where_it_follows() {
    let server = Server::start(&[]);
    let entry = row(1, "a", 1, "null");
    assert_eq!(
        publish(&server, &["e1", "0", "1", "1", "10", "s", &entry, "", ""]),
        "epoch "
    );
    epoch_at(&server, "0");
    assert_eq!(
        publish(&server, &["e2", "0", "1", "1", "10", "s", &entry, "", ""]),
        "epoch "
    );
    assert_eq!(
        publish(&server, &["e1", "5", "6", "6", "10", "s", &entry, "", ""]),
        "head 0"
    );
    assert_eq!(
        publish(&server, &["e1", "0", "1", "1", "10", "s", &entry, "", ""]),
        "ok 1"
    );
    assert_eq!(
        publish(&server, &["e1", "0", "1", "1", "10", "s", &entry, "", ""]),
        "head 1"
    );
    // Numbers whose rows were purged.
    assert_eq!(publish(&server, &["e1", "1", "2", "7", "10"]), "ok 7");
    server.ask(&["HDEL", ENTRIES, "s"]);
    assert_eq!(
        publish(
            &server,
            &["e1", "7", "8", "8", "10", "t", &row(8, "b", 1, "null"), "", ""]
        ),
        "damaged "
    );
    assert!(server.ask(&["XLEN", STREAM]).starts_with(":2"));
}

#[test]
fn the_count_is_always_that_of_the_entries() {
    let server = Server::start(&[]);
    epoch_at(&server, "0");
    let publish = |after: u64, slot: &str, entry: &str, ended: &str| {
        let (after, next) = (after.to_string(), (after + 1).to_string());
        let done = publish(
            &server,
            &[
                "e1",
                &after,
                &next,
                &next,
                "10",
                slot,
                entry,
                ended,
                end_of(entry),
            ],
        );
        assert_eq!(done, format!("ok {next}"));
        let number = |reply: String| reply.trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
        let count = server.ask(&["HGET", META, "count"]);
        let count = count.lines().nth(1).unwrap().to_owned();
        assert_eq!(number(server.ask(&["HLEN", ENTRIES])), count);
        let kept = server.ask(&["HKEYS", ENTRIES]);
        (count, kept)
    };
    assert_eq!(publish(0, "s", &row(1, "a", 5, "100"), "").0, "1");
    assert_eq!(publish(1, "s", &row(2, "a", 6, "200"), "").0, "1");
    // It refuses more, but not for as long: both stay.
    let (count, kept) = publish(2, "s", &row(3, "a", 7, "150"), "");
    assert!(count == "2" && kept.contains("3#s"), "{kept}");
    // It refuses nothing that is not refused already.
    assert_eq!(publish(3, "s", &row(4, "a", 5, "120"), "").0, "2");
    assert_eq!(
        publish(4, "g", "[\"g\",5,\"i\",\"k\",\"00\",\"s\",[],null]", "").0,
        "3"
    );
    let (count, kept) = publish(5, "end", &row(6, "k", 1, "null"), "g");
    assert!(count == "3" && !kept.contains("\ng\r"), "{kept}");
    let forget = |now: &str, most: &str| {
        run(
            &server,
            include_str!("../src/lua/forget.lua"),
            &[META, ENTRIES, EXPIRY],
            &["e1", now, most],
        )
    };
    assert_eq!(forget("149", "10"), ":0");
    assert_eq!(forget("150", "10"), ":1");
    assert_eq!(forget("1000", "10"), ":1");
    assert_eq!(publish(6, "z", &row(7, "z", 1, "null"), "").0, "2");
}

/// What a batch does is what its entries would do one by one.
#[test]
fn entries_of_one_batch_see_each_other() {
    let entries = [
        ("s", row(1, "a", 5, "100"), ""),
        ("s", row(2, "a", 6, "200"), ""),
        ("s", row(3, "a", 7, "150"), ""),
        ("s", row(4, "a", 5, "120"), ""),
        ("g", "[\"g\",5,\"i\",\"k\",\"00\",\"s\",[],300]".to_owned(), ""),
        ("end", row(6, "k", 1, "null"), "g"),
        ("t", row(7, "t", 1, "400"), ""),
        ("t", row(8, "t", 1, "null"), ""),
        ("g", "[\"g\",9,\"i\",\"k\",\"01\",\"s\",[],300]".to_owned(), ""),
        ("h", "[\"g\",10,\"i\",\"l\",\"02\",\"s\",[],500]".to_owned(), ""),
        ("end2", row(11, "l", 1, "600"), "h"),
    ];
    let held = |pieces: &[usize]| {
        let server = Server::start(&[]);
        epoch_at(&server, "0");
        let mut at = 0;
        for piece in pieces {
            let (after, last) = (at.to_string(), (at + piece).to_string());
            let first = (at + 1).to_string();
            let mut words = vec!["e1", &after, &first, &last, "100"];
            for (slot, text, ended) in &entries[at..at + piece] {
                words.extend([slot, text.as_str(), ended, end_of(text)]);
            }
            assert_eq!(publish(&server, &words), format!("ok {last}"));
            at += piece;
            let count = server.ask(&["HGET", META, "count"]);
            let count = count.lines().nth(1).unwrap();
            assert_eq!(server.ask(&["HLEN", ENTRIES]).trim(), format!(":{count}"));
        }
        let lines = |reply: String| {
            let mut lines: Vec<String> = reply.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        (
            lines(server.ask(&["HGETALL", ENTRIES])),
            server.ask(&["ZRANGE", EXPIRY, "0", "-1", "WITHSCORES"]),
        )
    };
    let one_by_one = held(&[1; 11]);
    assert_eq!(one_by_one, held(&[11]));
    assert_eq!(one_by_one, held(&[4, 4, 3]));
    let scores = &one_by_one.1;
    assert!(scores.contains("150") && !scores.contains("400"), "{scores}");
}

/// A user may be called what another's entry is kept under beside its slot.
#[test]
fn an_entry_that_stands_beside_another_takes_no_slot() {
    let server = Server::start(&[]);
    epoch_at(&server, "0");
    let words = |after: &'static str, first: &'static str, slot: &'static str, entry: &str| {
        let end = end_of(entry).to_owned();
        let entry = entry.to_owned();
        let words = ["e1", after, first, first, "10", slot, &entry, "", &end];
        assert_eq!(publish(&server, &words), format!("ok {first}"));
    };
    words("0", "1", "r:user:a#3", &row(1, "a#3", 1, "null"));
    words("1", "2", "r:user:a", &row(2, "a", 5, "200"));
    words("2", "3", "r:user:a", &row(3, "a", 7, "150"));
    assert!(server.ask(&["HGET", ENTRIES, "r:user:a#3"]).contains("\"a#3\""));
    assert!(server.ask(&["HLEN", ENTRIES]).starts_with(":3"));
}

#[test]
fn an_attestation_counts_only_for_the_reading_it_rests_on() {
    let server = Server::start(&[]);
    epoch_at(&server, "10");
    assert_eq!(attest(&server, &["p1", "1", "e1", "10"]), "late");
    assert!(begin(&server, "p1").starts_with(":1 0 e1 l1 10"));
    assert!(begin(&server, "p2").starts_with(":2 "));
    assert_eq!(attest(&server, &["p1", "1", "e1", "11"]), "behind");
    assert_eq!(attest(&server, &["p1", "1", "e2", "10"]), "epoch");
    assert_eq!(attest(&server, &["p2", "1", "e1", "10"]), "late");
    assert_eq!(attest(&server, &["p2", "2", "e1", "10"]), "ok");
    // A slower one takes nothing away.
    assert_eq!(attest(&server, &["p1", "1", "e1", "9"]), "ok");
    assert!(
        server
            .ask(&["HMGET", PULSE, "attested", "attested_head"])
            .contains("2\r\n$2\r\n10")
    );
    // It has begun anew: what it read before is no longer what it may speak of.
    begin(&server, "p1");
    assert_eq!(attest(&server, &["p1", "1", "e1", "10"]), "late");
    // The counter was lost, and with it every note.
    server.ask(&["DEL", PULSE]);
    assert_eq!(attest(&server, &["p1", "3", "e1", "10"]), "late");
    begin(&server, "p1");
    server.ask(&["HSET", META, "count", "1"]);
    assert_eq!(attest(&server, &["p1", "1", "e1", "10"]), "damaged");
}

#[test]
fn an_epoch_is_flipped_by_one_builder_only_and_only_whole() {
    let server = Server::start(&[]);
    let (entries, expiry) = ("{t}:e2:entries", "{t}:e2:expiry");
    let script = format!("{PUT}{}", include_str!("../src/lua/build.lua"));
    let build = |there: &str, sequence: u64| {
        let slot = format!("s{sequence}");
        let entry = row(sequence, &slot, 1, "500");
        run(
            &server,
            &script,
            &[entries, expiry],
            &[there, "60000", &slot, &entry, "", "500"],
        )
    };
    let flip = |epoch: &str, head: &str, count: &str| {
        run(
            &server,
            include_str!("../src/lua/flip.lua"),
            &[META, entries, expiry, ENTRIES, EXPIRY, STREAM],
            &[epoch, head, "e2", "l1", "2", count],
        )
    };
    assert_eq!(build("0", 1), ":1");
    assert_eq!(build("0", 2), ":-1");
    assert_eq!(build("1", 2), ":2");
    assert!(
        server.ask(&["TTL", entries]).starts_with(":60") || server.ask(&["TTL", entries]).starts_with(":5")
    );
    epoch_at(&server, "1");
    server.ask(&["HSET", ENTRIES, "old", "x"]);
    assert_eq!(flip("", "", "2"), "changed e1 1");
    assert_eq!(flip("e1", "0", "2"), "changed e1 1");
    assert_eq!(flip("e1", "1", "3").trim(), "lost");
    assert_eq!(flip("e1", "1", "2").trim(), "ok 2");
    assert_eq!(flip("e1", "1", "2"), "changed e2 2");
    assert!(
        server.ask(&["TTL", entries]).starts_with(":-1") && server.ask(&["TTL", expiry]).starts_with(":-1")
    );
    assert!(server.ask(&["EXISTS", ENTRIES]).starts_with(":0"));
}

#[test]
fn a_gateway_reports_hears_and_is_forgotten_when_it_falls_silent() {
    let server = Server::start(&[]);
    let pulse = |gateway: &str| {
        run(
            &server,
            include_str!("../src/lua/pulse.lua"),
            &[META, PULSE, GATEWAYS],
            &[gateway, "l1 7 edge"],
        )
    };
    assert_eq!(pulse("g1"), "$-1 $-1 $-1 $-1 $-1 $-1 $-1 $-1");
    epoch_at(&server, "10");
    begin(&server, "p1");
    assert_eq!(attest(&server, &["p1", "1", "e1", "10"]), "ok");
    assert_eq!(pulse("g1"), "1 1 10 e1 e1 l1 10 $-1");
    let sweep = || {
        run(
            &server,
            include_str!("../src/lua/sweep.lua"),
            &[PULSE, GATEWAYS],
            &["30"],
        )
    };
    assert_eq!(sweep(), ":0");
    for _ in 0..31 {
        begin(&server, "p2");
    }
    pulse("g2");
    assert_eq!(sweep(), ":0");
    for _ in 0..30 {
        begin(&server, "p2");
    }
    // Two publishers: sixty ticks of silence.
    assert_eq!(sweep(), ":2");
    assert!(server.ask(&["HKEYS", GATEWAYS]).contains("g2"));
    server.ask(&["DEL", PULSE]);
    begin(&server, "p3");
    assert_eq!(sweep(), ":1");
}

#[test]
fn places_are_few_kept_given_back_and_lost() {
    const LOADS: &str = "{t}:loads";
    let server = Server::start(&[]);
    let place = |word: &str, gateway: &str, milliseconds: &str| {
        let script = include_str!("../src/lua/place.lua");
        run(
            &server,
            script,
            &[META, LOADS],
            &[word, gateway, milliseconds, "2"],
        )
    };
    assert_eq!(place("take", "g1", "60000"), ":1 ");
    epoch_at(&server, "1");
    assert_eq!(place("take", "g2", "60000"), ":1 e1");
    assert_eq!(place("take", "g3", "60000"), ":0 e1");
    // Once more is not one more.
    assert_eq!(place("take", "g1", "60000"), ":1 e1");
    assert_eq!(place("keep", "g1", "60000"), ":1 e1");
    assert_eq!(place("keep", "g3", "60000"), ":0 e1");
    assert_eq!(place("give", "g3", "60000"), ":0 e1");
    assert!(server.ask(&["HLEN", LOADS]).starts_with(":2"));
    assert_eq!(place("give", "g1", "60000"), ":0 e1");
    assert_eq!(place("keep", "g1", "60000"), ":0 e1");
    assert_eq!(place("take", "g3", "60000"), ":1 e1");
    // What nobody wrote like that is nobody's.
    server.ask(&["HSET", LOADS, "1", "garbage", "2", "1 g2"]);
    assert_eq!(place("take", "g4", "60000"), ":1 e1");
    assert_eq!(place("take", "g5", "60000"), ":1 e1");
    assert_eq!(place("take", "g6", "60000"), ":0 e1");
}

#[test]
fn a_gateway_that_leaves_is_noted_and_then_forgotten() {
    let server = Server::start(&[]);
    begin(&server, "p1");
    let leave = include_str!("../src/lua/leave.lua");
    assert_eq!(run(&server, leave, &[PULSE, GATEWAYS], &["g1"]), ":1");
    assert!(server.ask(&["HGET", GATEWAYS, "g1"]).contains("\r\n1 left\r\n"));
    for _ in 0..31 {
        begin(&server, "p1");
    }
    let sweep = include_str!("../src/lua/sweep.lua");
    assert_eq!(run(&server, sweep, &[PULSE, GATEWAYS], &["30"]), ":1");
}
