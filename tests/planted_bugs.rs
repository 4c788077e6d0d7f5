//! Every planted bug can still be planted: its header names properties and scenarios that exist, its patch applies.
//! That each is also found is `streamproof audit`.

use std::path::Path;

use streamproof::audit::Workshop;
use streamproof::bugs;

#[test]
fn each_patch_applies() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let all = bugs::read_all(checkout).unwrap();
    assert!(all.len() >= 10, "only {} bugs", all.len());
    let shop = Workshop::open(checkout).unwrap();
    for bug in &all {
        shop.plant(bug).unwrap();
    }
    shop.restore().unwrap();
}
