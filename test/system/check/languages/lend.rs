#[path = "../../../../shim/languages/userdma.rs"]
mod userdma;

extern "C" {
    fn peers_open() -> *mut u8;
    fn peers_read() -> i32;
    fn peers_close() -> i32;
}

fn main() {
    let is_checked = std::env::args().nth(1).as_deref() == Some("checked");
    assert_eq!(userdma::present(), is_checked);
    let buffer = unsafe { peers_open() };
    userdma::name(buffer, 4096, "pool");
    {
        let _lend = userdma::lend(buffer, 4096, userdma::READ, "request 1");
        assert_eq!(unsafe { peers_read() }, 0);
    }
    assert_eq!(userdma::expect_finished(buffer, 4096), 0);
    userdma::unchecked(buffer, 8);
    assert_eq!(unsafe { peers_read() }, 0);
    let own = [0u8; 64];
    assert!(userdma::lend_to(own.as_ptr(), 64, userdma::READ | userdma::WRITE, "own", 0, 5).take_back());
    assert_eq!(unsafe { peers_close() }, 0);
}
