//! cargo test with userdma: userdma check --private --fail-on never -- cargo test
use std::ffi::c_void;

extern "C" {
    pub fn example_open(name: *const i8) -> *mut c_void;
    pub fn example_qp_num(transfer: *const c_void) -> u32;
    pub fn example_write(transfer: *mut c_void) -> i32;
    pub fn example_write_stale(transfer: *mut c_void) -> i32;
    pub fn example_close(transfer: *mut c_void);
}
