//! Guards the build of the encoder: without nasm openh264 is built in plain C, silently, at three times the CPU.

#[test]
#[cfg(target_arch = "x86_64")]
fn openh264_is_built_with_simd() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_onair")).expect("the program is built");
    let name = b"WelsSampleSatd16x16_sse41";
    let found = program.windows(name.len()).any(|bytes| bytes == name);
    assert!(
        found,
        "openh264 has no SSE4.1 code: install nasm, then cargo clean -p openh264-sys2"
    );
}
