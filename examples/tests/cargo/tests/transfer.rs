#[path = "../../../../shim/languages/userdma.rs"]
mod userdma;

use std::time::Duration;
use transfer::*;

#[test]
fn reconnects() {
    let _checked = userdma::checked(&[]);
    unsafe {
        let transfer = example_open(std::ptr::null());
        let fault = userdma::fault(&format!("qp={},drop=100%", example_qp_num(transfer))).unwrap();
        assert_eq!(example_write(transfer), 12);
        fault.wait(3, Some(Duration::from_secs(10))).unwrap();
        drop(fault);
        assert_eq!(example_write(transfer), 0);
        example_close(transfer);
    }
}

#[test]
fn survives_a_stale_key() {
    let _checked = userdma::checked(&["stale-rkey"]);
    unsafe {
        let transfer = example_open(std::ptr::null());
        assert_ne!(example_write_stale(transfer), 0);
        assert_eq!(example_write(transfer), 0);
        example_close(transfer);
    }
}

#[test]
#[ignore = "fails: the finding of the check"]
fn with_a_mistake() {
    let _checked = userdma::checked(&[]);
    unsafe {
        let transfer = example_open(std::ptr::null());
        example_write_stale(transfer);
        example_close(transfer);
    }
}
