//! Signed epochs from anywhere: changed, cut, too long, signed by another.

use proptest::prelude::*;

use super::*;

fn key(n: u8) -> AuthorityKey {
    AuthorityKey::from_bytes([n; 32])
}

fn peer(n: u32) -> PeerId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_le_bytes());
    PeerId(id)
}

fn make(roster: &Roster) -> Result<SignedEpoch, EpochError> {
    let former = vec![
        Former { epoch: 2, material: Material::Salt([2; 16]) },
        Former { epoch: 0, material: Material::Raw([9; 16]) },
    ];
    SignedEpoch::make(&key(5), 3, [6; 16], former, roster, 77)
}

fn small() -> SignedEpoch {
    make(&Roster { members: vec![peer(2), peer(1), peer(2)], denied: vec![peer(3)] }).expect("made")
}

#[test]
fn it_reads_back_and_says_who_gets_the_secret() {
    let signed = small();
    let read = SignedEpoch::parse(signed.as_bytes()).expect("it holds");
    assert_eq!(read, signed);
    assert_eq!((read.number(), read.made_s(), read.members(), read.authority()), (3, 77, 2, key(5).id()));
    assert!(read.is_for(&peer(1)) && read.is_for(&peer(2)));
    assert!(!read.is_for(&peer(3)) && !read.is_for(&peer(4)), "denied, and never heard of");
    assert_eq!(read.denied(), [peer(3)]);
    let former: Vec<_> = read.former().collect();
    assert_eq!(former[1], (0, GroupSecret::from_bytes([9; 16])));
    assert!(read.proves_authority_over(&former[0].1) && !read.proves_authority_over(&former[1].1));
    assert_eq!(read.former_of_next().len(), 3);
    // Who is both keeps nothing.
    let both = make(&Roster { members: vec![peer(1)], denied: vec![peer(1)] }).expect("made");
    assert!(!both.is_for(&peer(1)));
    let printed = format!("{signed:?} {:?}", key(5));
    assert!(!printed.contains("[6") && !printed.contains("[5"), "{printed}");
}

/// Authority with the private key 5 x 32, epoch 3, salt 6 x 16. Source: `firmware-notes/trust.md`, computed by another program.
#[test]
fn the_documented_secret_holds() {
    let secret = bound_secret(&[6; 16], &key(5).id(), 3);
    assert_eq!(small().secret(), secret);
    assert_eq!(&**secret.code(), DOCUMENTED_CODE);
    assert_eq!(key(5).id().to_text(), DOCUMENTED_AUTHORITY);
}

const DOCUMENTED_CODE: &str = "6AM0-TZ1X-7AT1-C1NT-JEM7-1Y58-76CC-SDY6";
const DOCUMENTED_AUTHORITY: &str = "nz5bzxjjwc3y7uj26tcvtd7p6txsvfywny6kn4xe7p6m3acqlpyq";

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let whole = small().as_bytes().to_vec();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = SignedEpoch::parse(&bytes).expect_err("a changed bit");
        assert!(matches!(error, EpochError::Signature | EpochError::Malformed), "bit {bit}: {error}");
    }
    for len in 0..whole.len() {
        assert!(SignedEpoch::parse(&whole[..len]).is_err(), "cut to {len}");
    }
}

/// What the authority itself would have to sign wrongly.
#[test]
fn what_does_not_fit_together_is_refused_though_it_is_signed() {
    let sign = |content: Vec<u8>| {
        let body = [&[VERSION][..], &content].concat();
        let signature = key(5).sign(&body);
        SignedEpoch::parse(&[&body[..], &signature].concat())
    };
    let good = small().body.clone();
    let pack = |body: &Body| postcard::to_stdvec(body).expect("packed");
    assert!(sign(pack(&good)).is_ok());
    assert_eq!(sign([pack(&good), vec![0]].concat()), Err(EpochError::Malformed), "something behind it");
    let with = |change: &dyn Fn(&mut Body)| {
        let mut body = good.clone();
        change(&mut body);
        sign(pack(&body))
    };
    let former = |epoch| Former { epoch, material: Material::Salt([1; 16]) };
    assert_eq!(with(&|body| body.former = vec![former(3)]), Err(EpochError::Malformed));
    assert_eq!(with(&|body| body.former = vec![former(1), former(2)]), Err(EpochError::Malformed));
    assert_eq!(with(&|body| body.former = (0..5).rev().map(former).collect()), Err(EpochError::Malformed));
    assert_eq!(with(&|body| body.members.reverse()), Err(EpochError::Malformed));
    assert_eq!(with(&|body| body.members = vec![[1; 16]; 2]), Err(EpochError::Malformed));
    let later = [&[VERSION + 1][..], &pack(&good)].concat();
    let signature = key(5).sign(&later);
    assert_eq!(SignedEpoch::parse(&[&later[..], &signature].concat()), Err(EpochError::Malformed));
}

#[test]
fn a_full_list_fits_and_more_does_not() {
    let ids = |count: usize| (0..count as u32).map(peer).collect::<Vec<_>>();
    let full = make(&Roster { members: vec![], denied: ids(PEERS_MAX) }).expect("a full list of denials");
    assert!(SignedEpoch::parse(full.as_bytes()).is_ok());
    let full = make(&Roster { members: ids(NAMED_MAX), denied: vec![] }).expect("a full list of members");
    assert!(SignedEpoch::parse(full.as_bytes()).is_ok());
    assert_eq!(make(&Roster { members: ids(NAMED_MAX + 1), denied: vec![] }), Err(EpochError::Malformed));
    let actual = SIGNED_EPOCH_BYTES_MAX + 1;
    assert_eq!(SignedEpoch::parse(&vec![1; actual]), Err(EpochError::TooLong { actual }));
}

#[test]
fn a_proof_is_of_one_session_and_one_device() {
    let proof = taken_proof(&Psk([1; 32]), &[2; 32], &peer(1));
    for other in [
        taken_proof(&Psk([2; 32]), &[2; 32], &peer(1)),
        taken_proof(&Psk([1; 32]), &[3; 32], &peer(1)),
        taken_proof(&Psk([1; 32]), &[2; 32], &peer(2)),
    ] {
        assert_ne!(proof, other);
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(SignedEpoch::parse(&bytes).is_err());
    }
}
