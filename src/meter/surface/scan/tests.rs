use proptest::prelude::*;
use serde_json::json;

use super::*;

fn scan(paths: &[&'static str], chunks: &[&[u8]]) -> Vec<Vec<(usize, Value)>> {
    let mut scanner = Scanner::new(Paths::new(paths));
    let mut documents = Vec::new();
    for chunk in chunks {
        scanner.feed(chunk, &mut |found| documents.push(std::mem::take(&mut found.values)));
    }
    scanner.finish(&mut |found| documents.push(std::mem::take(&mut found.values)));
    documents
}

const PATHS: &[&str] = &["a", "b.c", "list[].t", "s"];

#[test]
fn finds_values_at_every_split_point() {
    let text = br#" {"x":[1,{"a":9}],"a":-1.5e3 ,"b":{"d":{"c":1},"c":{"q":[1,"]}"]}},
        "list":[{"t":"u","z":{"t":0}},[{"t":1}],{"t":null}],"s":"q\"\u00e9\\","\u0061":true}"#;
    let expected = vec![vec![
        (0, json!(-1500.0)),
        (1, json!({"q": [1, "]}"]})),
        (2, json!("u")),
        (2, json!(null)),
        (3, json!("q\"\u{e9}\\")),
        (0, json!(true)),
    ]];
    assert_eq!(scan(PATHS, &[text]), expected);
    for cut in 0..text.len() {
        let (a, b) = text.split_at(cut);
        assert_eq!(scan(PATHS, &[a, b]), expected, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(scan(PATHS, &bytes), expected);
}

#[test]
fn what_is_not_utf8_is_repaired() {
    let text = b"{\"a\":\"x\xff\",\"s\":{\"n\":1,\"t\":\"\xe6\x9d\"}}";
    let expected = vec![(0, json!("x\u{fffd}")), (3, json!({"n": 1, "t": "\u{fffd}"}))];
    assert_eq!(scan(PATHS, &[text]), vec![expected]);
}

#[test]
fn documents_in_lines_and_in_an_array() {
    let one = vec![(0, json!(1))];
    let two = vec![(0, json!(2))];
    for text in ["{\"a\":1}\n{\"a\":2}\n", "[{\"a\":1}\r\n,{\"a\":2}]", "\n\n{\"a\":1} {\"a\":2}"] {
        assert_eq!(scan(PATHS, &[text.as_bytes()]), [one.clone(), two.clone()], "{text}");
    }
}

#[test]
fn what_is_cut_off_keeps_what_was_complete() {
    assert_eq!(scan(PATHS, &[br#"{"a":1,"b":{"c":2"#]), [vec![(0, json!(1)), (1, json!(2))]]);
    assert_eq!(scan(PATHS, &[br#"{"a":1,"s":"unfin"#]), [vec![(0, json!(1))]]);
}

#[test]
fn values_and_keys_over_the_cap_are_left_out() {
    let long = "x".repeat(MAX_VALUE);
    let text = format!(r#"{{"s":"{long}","{long}":1,"a":2}}"#);
    assert_eq!(scan(PATHS, &[text.as_bytes()]), [vec![(0, json!(2))]]);
    let deep = format!("{{\"x\":{}1{},\"a\":3}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(scan(PATHS, &[deep.as_bytes()]), [vec![(0, json!(3))]]);
}

#[test]
fn many_values_are_capped() {
    let text = format!("{{\"list\":[{}]}}", vec!["{\"t\":1}"; 2 * MAX_VALUES].join(","));
    assert_eq!(scan(PATHS, &[text.as_bytes()])[0].len(), MAX_VALUES);
    let mut cut = Vec::new();
    let mut scanner = Scanner::new(Paths::new(PATHS));
    let next = b"{\"a\":1}";
    for bytes in [next, text.as_bytes(), next] {
        scanner.feed(bytes, &mut |found| cut.push(found.is_cut()));
    }
    assert_eq!(cut, [false, true, false]);
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(
        prop_oneof![4 => proptest::sample::select(br#"{}[],:"\ab1 "#.to_vec()), 1 => any::<u8>()],
        0..200,
    )) {
        scan(PATHS, &[&bytes]);
    }

    #[test]
    fn agrees_with_a_parser(a in any::<i32>(), s in ".*", junk in ".*", cut in 0usize..100) {
        let text = json!({"junk": [junk], "a": a, "b": {"c": s, "d": junk}, "s": s}).to_string();
        let (x, y) = text.as_bytes().split_at(cut.min(text.len()));
        let found: Vec<_> = scan(PATHS, &[x, y]).remove(0);
        prop_assert!(found.contains(&(0, json!(a))));
        prop_assert!(found.contains(&(1, json!(&s))));
        prop_assert!(found.contains(&(3, json!(s))));
    }
}
