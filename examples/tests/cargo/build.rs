// The library of transfer.c, which the environment names.
fn main() {
    println!("cargo:rustc-link-search={}", std::env::var("TRANSFER_FOLDER").unwrap());
    println!("cargo:rustc-link-lib=transfer");
}
