//! The lists that are read, and what becomes of a source.

use super::*;
use serde_json::json;

const SOURCE: &str = "\
fn pick(a: u32, b: u32, c: bool) -> bool {
    a < b && c || !c && a == b
}
";

/// A change as cargo-mutants lists it, at the first `operator` of the second line.
fn listed(operator: &str, replacement: &str) -> Value {
    let line = SOURCE.lines().nth(1).expect("two lines");
    let column = line.find(operator).expect("it is there") + 1;
    json!({
        "file": "src/link/pick.rs",
        "name": format!("src/link/pick.rs:2:{column}: replace {operator} with {replacement} in pick"),
        "genre": if operator == "!" { "UnaryOperator" } else { "BinaryOperator" },
        "replacement": replacement,
        "span": { "start": { "line": 2, "column": column } },
        "function": { "function_name": "pick", "return_type": "-> bool" },
    })
}

fn read(list: &[Value]) -> Areas {
    let work = tempfile::tempdir().expect("a folder");
    let file = work.path().join("fast/source/src/link/pick.rs");
    fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    fs::write(&file, SOURCE).expect("written");
    fs::write(work.path().join("fast/link.json"), Value::from(list).to_string()).expect("written");
    Areas::read(work.path(), vec!["link".into()]).expect("read")
}

/// Of a file that is a module twice, each change is listed twice, at one place: it is woven in once.
#[test]
fn what_is_listed_twice_stands_once() {
    let list = [("<", ">"), ("&&", "||"), ("||", "&&"), ("!", ""), ("==", "!=")];
    let list: Vec<Value> = list.into_iter().map(|(operator, new)| listed(operator, new)).collect();
    let (once, twice) = (read(&list), read(&[list.clone(), list].concat()));
    assert_eq!((twice.changes.len(), twice.names[0].1.clone()), (5, 1..6));
    let woven = |areas: &Areas| {
        let woven = weave::weave(SOURCE, &areas.changes.iter().collect::<Vec<_>>()).expect("woven");
        assert!(woven.skipped.is_empty());
        woven.text
    };
    assert_eq!(woven(&twice), woven(&once));
    assert!(syn::parse_file(&woven(&once)).is_ok());
}

/// A sign is taken away from a value that is worked out once; a field that is named like its value gets its name back.
#[test]
fn signs_and_fields_have_a_switch() {
    let source = "fn next(of: P, x: i32) -> P {\n    P { x, y: -x, ..of }\n}\n";
    let change = |(number, genre, column): (u32, &str, usize)| {
        let listed = json!({
            "file": "src/link/next.rs",
            "name": format!("src/link/next.rs:2:{column}: a change"),
            "genre": genre,
            "replacement": "",
            "span": { "start": { "line": 2, "column": column } },
            "function": { "function_name": "next", "return_type": "-> P" },
        });
        Change::read(number, &listed).expect("a change")
    };
    let changes = [(1, "StructField", 9), (2, "StructField", 12), (3, "UnaryOperator", 15)].map(change);
    let woven = weave::weave(source, &changes.iter().collect::<Vec<_>>()).expect("woven");
    assert!(woven.skipped.is_empty());
    let negated = "({ let v__ = x; if crate::mutant(3) { v__ } else { -v__ } })";
    let expected = format!(
        "P {{ x: (if crate::mutant(1) {{ (of).x }} else {{ x }}), \
         y: (if crate::mutant(2) {{ (of).y }} else {{ {negated} }}), ..of }}"
    );
    assert_eq!(woven.text.lines().nth(1).map(str::trim), Some(&*expected));
    assert!(syn::parse_file(&woven.text).is_ok());
    // What is made of a value takes it away: it cannot be made twice.
    let source = source.replace("..of", "..P::of(x)");
    let woven = weave::weave(&source, &changes.iter().collect::<Vec<_>>()).expect("woven");
    assert_eq!(woven.skipped, [1]);
}
