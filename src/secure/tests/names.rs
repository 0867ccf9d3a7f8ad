//! A name is told to who has shown a key of this side, and neither it nor its length to anybody else.

use super::*;

/// What each side has told the other (the active one first), and the length of every flight.
fn meet(a: Fixed, b: Fixed) -> ([Option<String>; 2], Vec<usize>) {
    let (a, b) = (Arc::new(a), Arc::new(b));
    let of = |n, policy: &Arc<Fixed>| SecureConfig::new(Arc::new(identity(n)), policy.clone());
    let mut pair = Pair::new(&of(1, &a), &of(2, &b));
    let mut lengths = Vec::new();
    pair.run(&mut |_, bytes| {
        lengths.push(bytes.len());
        bytes.to_vec()
    });
    assert_eq!((&pair.at_active.error, &pair.at_passive.error), (&None, &None));
    let told = |policy: &Fixed, peer: u8| {
        policy.told.get().map(|(id, name)| {
            assert_eq!(*id, identity(peer).id());
            name.clone()
        })
    };
    ([told(&b, 1), told(&a, 2)], lengths)
}

fn named(policy: Fixed, name: &str) -> Fixed {
    Fixed { name: Some(name.into()), ..policy }
}

#[test]
fn members_are_told_each_others_names_and_the_length_is_rounded() {
    let group = || Fixed::group(9);
    let (told, lengths) = meet(named(group(), "pump"), named(group(), "gateway"));
    assert_eq!(told, [Some("pump".into()), Some("gateway".into())]);
    assert_eq!(meet(named(group(), "a"), named(group(), "gateway north")).1, lengths);
    let (told, nameless) = meet(group(), group());
    assert_eq!(told, [None, None]);
    assert!(nameless < lengths);
    // What is no name is not said.
    assert_eq!(meet(named(group(), "bad\nname"), named(group(), "")), (told, nameless));
}

#[test]
fn a_stranger_is_told_no_name() {
    let (told, lengths) = meet(named(Fixed::open(), "pump"), named(Fixed::open(), "gateway"));
    assert_eq!(told, [None, None]);
    assert_eq!(meet(Fixed::open(), Fixed::open()).1, lengths, "it was there, if not read");
}
