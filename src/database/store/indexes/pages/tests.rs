use super::*;
use crate::database::store::engine::Ticket;
use crate::database::store::ground::VALUE_BYTES_MAX;
use crate::database::store::keys::CollectionKey;

const INDEX: IndexKey = IndexKey { collection: CollectionKey(3), number: 7 };

fn engine() -> (tempfile::TempDir, Engine) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = Engine::open(directory.path(), 1 << 20, Ticket::default()).expect("open");
    (directory, engine)
}

fn all(engine: &Engine) -> (Vec<Entry>, Vec<usize>) {
    let (mut entries, mut sizes) = (Vec::new(), Vec::new());
    engine
        .scan(&keys::entries(INDEX, &[]), &keys::entries_end(INDEX), |_, value| {
            sizes.push(value.len());
            entries.extend(read_page(value)?);
            Ok(ControlFlow::Continue(()))
        })
        .expect("readable");
    assert_eq!(count(engine, INDEX).expect("in order").0, entries.len() as u64);
    (entries, sizes)
}

fn apply(engine: &Engine, edit: Edit) {
    let mut writes = Writes::default();
    edit.write(INDEX, &mut writes);
    for (key, value) in &writes.entries {
        let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
        assert!(bytes < VALUE_BYTES_MAX + 300, "{bytes} bytes in an entry of sled");
    }
    engine.apply_part(writes).expect("applied");
}

/// An index is a map whatever is done to it, and no page outgrows its limit.
#[test]
fn pages_are_a_map_and_have_their_size() {
    for seed in 0..12 {
        let (_directory, engine) = engine();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut model: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
        for round in 0..50 {
            let mut edit = Edit::default();
            for _ in 0..random.usize(1..60) {
                let mut values = vec![random.u8(1..5); random.usize(1..4)];
                values.push(0);
                if random.u8(0..8) == 0 {
                    values.resize(random.usize(150..400), 7);
                }
                let id = format!("{}{}", "x".repeat([0, 0, 0, 230][random.usize(0..4)]), random.u8(0..40));
                let entry = Entry::new(&values, &id, random.u64(1..1 << 40));
                if random.u8(0..3) > 0 {
                    edit.add(&engine, INDEX, entry.clone()).expect("added");
                    model.insert(entry.key.to_vec(), entry);
                } else {
                    let was_there = model.remove(&*entry.key).is_some();
                    assert_eq!(edit.take(&engine, INDEX, &entry).is_ok(), was_there);
                }
            }
            apply(&engine, edit);
            let (entries, sizes) = all(&engine);
            assert!(entries.iter().eq(model.values()), "seed {seed}, round {round}");
            assert!(sizes.iter().all(|size| *size <= PAGE_BYTES_MAX), "{sizes:?}");
        }
        let (before, mut copied) = (all(&engine), Vec::new());
        let mut writes = Writes::default();
        copy(&engine, INDEX, |key, value| {
            copied.push(value.len());
            writes.insert(key, value);
            Ok(())
        })
        .expect("copied");
        assert!(copied.len() <= before.1.len());
        let (_other_directory, other) = self::engine();
        writes.entries.into_iter().for_each(|entry| {
            other.apply_part(Writes { entries: vec![entry] }).expect("applied");
        });
        assert_eq!(all(&other).0, before.0);
        for entry in model.values() {
            let found = find(&engine, INDEX, entry.values(), entry.id()).expect("readable");
            assert_eq!(found, Some(entry.sequence));
        }
        assert_eq!(find(&engine, INDEX, &[9], "none").expect("readable"), None);
    }
}

/// Readings of several sensors, as they come, one or some in a commit, leave full pages behind them.
#[test]
fn what_grows_in_several_places_fills_its_pages() {
    for at_once in [1, 2, 10, 50] {
        let (_directory, engine) = engine();
        for first in (0..3_000u64).step_by(at_once) {
            let mut edit = Edit::default();
            for n in first..first + at_once as u64 {
                let values = format!("\u{6}s{:02}\0\u{6}2026-11-{n:06}\0", n / at_once as u64 % 10);
                let entry = Entry::new(values.as_bytes(), &format!("r-{n:06}"), n + 1);
                edit.add(&engine, INDEX, entry).expect("added");
            }
            apply(&engine, edit);
        }
        let (entries, sizes) = all(&engine);
        assert_eq!(entries.len(), 3_000);
        let filled = sizes.iter().sum::<usize>() * 100 / (sizes.len() * PAGE_BYTES_MAX);
        println!("{at_once}: {filled} percent of {} pages", sizes.len());
        assert!(filled > 70, "{at_once} at once: {filled} percent of {} pages", sizes.len());
    }
}

/// What comes in no order leaves its pages about half full.
#[test]
fn what_comes_in_no_order_fills_its_pages() {
    let (_directory, engine) = engine();
    let mut random = fastrand::Rng::with_seed(3);
    let mut numbers: Vec<u64> = (0..3_000).collect();
    random.shuffle(&mut numbers);
    for n in numbers {
        let mut edit = Edit::default();
        let values = format!("\u{6}2026-11-{n:06}\0");
        edit.add(&engine, INDEX, Entry::new(values.as_bytes(), &format!("r-{n:06}"), n + 1)).expect("added");
        apply(&engine, edit);
    }
    let (entries, sizes) = all(&engine);
    assert_eq!(entries.len(), 3_000);
    let filled = sizes.iter().sum::<usize>() * 100 / (sizes.len() * PAGE_BYTES_MAX);
    assert!(filled > 45, "{filled} percent of {} pages", sizes.len());
}

/// A check counts entries in order, each in the page that is responsible for it, and nothing else.
#[test]
fn what_is_out_of_order_is_damage() {
    let entry = |id: &str| Entry::new(b"v", id, 1);
    let key = |id: &str| keys::entries(INDEX, entry(id).key());
    let last = || keys::entries(INDEX, keys::LAST_FENCE);
    for (pages, found) in [
        (vec![(key("m"), vec!["a", "m"]), (last(), vec!["n"])], Some(3)),
        (vec![(key("m"), vec!["a", "n"])], None),
        (vec![(key("m"), vec!["c"]), (last(), vec!["b"])], None),
        (vec![(key("m"), vec!["c"]), (last(), vec!["c"])], None),
        (vec![(last(), vec!["b", "a"])], None),
    ] {
        let (_directory, engine) = engine();
        let mut writes = Writes::default();
        for (key, ids) in &pages {
            let entries: Vec<Entry> = ids.iter().map(|id| entry(id)).collect();
            writes.insert(key.as_slice(), page_of(&entries));
        }
        engine.apply_part(writes).expect("applied");
        assert_eq!(count(&engine, INDEX).ok().map(|(entries, _)| entries), found, "{pages:?}");
    }
}
