//! A disk that takes no state, or hangs.

use super::*;

/// A guard whose folder of state takes nothing, and the lease that it guards.
fn without_state(place: &std::path::Path) -> (Lease, Scripted, Account) {
    let (mut lease, vendor, _) = lease(qencode(), |_| {});
    let wall = Box::new(|| Timestamp::from_second(1_795_000_000).unwrap());
    let account = Account::in_lab(Some(place), wall, 1).unwrap();
    lease.account = account.clone();
    let vendor = Scripted {
        account: account.clone(),
        ..vendor
    };
    lease.platform = Box::new(vendor.clone());
    (lease, vendor, account)
}

#[tokio::test]
async fn a_disk_that_takes_no_state_keeps_nothing_off_the_air_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("state");
    let kept = place.join("streams.json");
    // Its parent is a file; then the file beside it cannot be made.
    std::fs::write(&place, "").unwrap();
    let (mut lease, vendor, account) = without_state(&place);
    assert!(account.is_kept(), "it is meant to be");
    lease.ready().await.unwrap();
    assert_eq!(vendor.with(|script| script.ours_at_start), Some(true));
    lease.release(Release::Exit).await;
    assert_eq!(vendor.asked(), "Show Start Stop");

    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir_all(place.join("streams.json.new")).unwrap();
    lease.ready().await.unwrap();
    assert!(lease.is_ours() && !kept.exists());
    lease.release(Release::Exit).await;
    assert!(!lease.is_ours());

    std::fs::remove_dir(place.join("streams.json.new")).unwrap();
    lease.ready().await.unwrap();
    let text = std::fs::read_to_string(&kept).unwrap();
    assert!(text.contains("\"ours\": true"), "{text}");
}

#[tokio::test]
async fn what_a_former_onair_wrote_is_known_though_its_folder_takes_nothing_now() {
    let folder = tempfile::tempdir().unwrap();
    let (lease, vendor, account) = without_state(folder.path());
    let wall = account.wall();
    let key = vendor.key.clone();
    account
        .write(|ledger| ledger.asking(&key, "main", wall))
        .await;
    drop((lease, vendor, account));
    // Whose lock cannot be opened, as on a disk that became read-only.
    std::fs::remove_file(folder.path().join("lock")).unwrap();
    std::fs::create_dir(folder.path().join("lock")).unwrap();
    let (_, _, account) = without_state(folder.path());
    assert_eq!(account.orphans(|_| false), std::slice::from_ref(&key));
    // Where it can be used again, what is known by then counts.
    std::fs::remove_dir(folder.path().join("lock")).unwrap();
    account
        .write(|ledger| ledger.stopped(&key, false, wall))
        .await;
    drop(account);
    let (_, _, account) = without_state(folder.path());
    assert_eq!(account.orphans(|_| false), []);
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_said_for_as_long_as_it_lasts() {
    let place = tempfile::tempdir().unwrap();
    let wall = Box::new(|| Timestamp::from_second(1_795_000_000).unwrap());
    let account = Account::in_lab(Some(place.path()), wall, 1).unwrap();
    let (trouble, key) = (account.trouble(), key_named("s1"));
    let ran = |ledger: &mut Ledger| {
        ledger.ran(&key, Duration::from_secs(1), account.wall(), &TimeZone::UTC)
    };
    account.write(ran).await;
    assert_eq!(*trouble.borrow(), None);
    let next = place.path().join("streams.json.new");
    std::fs::remove_file(&next).unwrap();
    std::os::unix::fs::symlink("/dev/full", &next).unwrap();
    account.write(ran).await;
    let said = trouble.borrow().clone().unwrap();
    assert!(said.contains("make room"), "{said}");
    std::fs::remove_file(&next).unwrap();
    let mut mended = account.trouble();
    account.write_again();
    mended.wait_for(Option::is_none).await.unwrap();
    drop(account);
    let text = std::fs::read_to_string(place.path().join("streams.json")).unwrap();
    assert!(
        text.contains("2000"),
        "both seconds are there: {}",
        text.trim_end()
    );
}

#[test]
fn a_disk_that_hangs_keeps_no_thread_and_gets_everything_in_the_end() {
    let place = tempfile::tempdir().unwrap();
    let wall = Box::new(|| Timestamp::from_second(1_795_000_000).unwrap());
    let account = Account::in_lab(Some(place.path()), wall, 1).unwrap();
    let key = key_named("s1");
    let ran = |ledger: &mut Ledger| {
        ledger.ran(&key, Duration::from_secs(1), account.wall(), &TimeZone::UTC);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .unwrap();
    // As the one write that hangs holds it.
    let hanging = account.shared.folder.lock().unwrap();
    runtime.block_on(async {
        for _ in 0..100 {
            account.write(ran).await;
        }
        let said = account.trouble().borrow().clone();
        assert!(said.is_some_and(|said| said.contains("the disk takes no state")));
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    });
    drop(hanging);
    account.shared.write();
    assert_eq!(*account.trouble().borrow(), None);
    let text = std::fs::read_to_string(place.path().join("streams.json")).unwrap();
    assert!(
        text.contains("100000"),
        "every second is there: {}",
        text.trim_end()
    );
}

fn key_named(id: &str) -> Key {
    Key {
        vendor: "qencode".to_owned(),
        api: "https://api".to_owned(),
        id: id.to_owned(),
    }
}
