#[path = "../../../../shim/languages/userdma.rs"]
mod userdma;

extern "C" {
    fn peers_open() -> *mut u8;
    fn peers_read() -> i32;
    fn peers_qpn() -> u32;
    fn peers_close() -> i32;
}

fn main() {
    assert!(userdma::present());
    let buffer = unsafe { peers_open() };
    {
        let fault = userdma::fault(&format!("qp={},drop=100%,count=1", unsafe { peers_qpn() })).unwrap();
        assert_eq!(unsafe { peers_read() }, 0);
        fault.wait(1, None).unwrap();
        assert_eq!(fault.count(), 1);
        let error = fault.wait(2, Some(std::time::Duration::from_millis(1))).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
    assert!(userdma::fault("drp=1").unwrap_err().to_string().contains("there is no"));
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
