//! CRC-32C (Castagnoli), by table, eight bytes a step: every byte that a run wrote goes through here twice.

/// `TABLE[n][b]`: what byte `b` adds when `n` more bytes follow it in the step.
const TABLE: [[u32; 256]; 8] = {
    let mut table = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[0][i] = crc;
        i += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut i = 0;
        while i < 256 {
            let crc: u32 = table[n - 1][i];
            table[n][i] = (crc >> 8) ^ table[0][(crc & 0xff) as usize];
            i += 1;
        }
        n += 1;
    }
    table
};

pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    let (steps, rest) = bytes.as_chunks::<8>();
    let crc = steps.iter().fold(!0u32, |crc, step| {
        let word = (u64::from_le_bytes(*step) ^ u64::from(crc)).to_le_bytes();
        (0..8).fold(0, |sum, n| sum ^ TABLE[7 - n][usize::from(word[n])])
    });
    !rest.iter().fold(crc, |crc, b| (crc >> 8) ^ TABLE[0][usize::from(crc as u8 ^ b)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn steps_of_eight_are_eight_of_one() {
        let bytes: Vec<u8> = (0..1_000u32).map(|i| (i * i / 7) as u8).collect();
        for len in (0..40).chain([999, 1_000]) {
            let byte = |crc: u32, b: &u8| (crc >> 8) ^ TABLE[0][usize::from(crc as u8 ^ b)];
            assert_eq!(crc32c(&bytes[..len]), !bytes[..len].iter().fold(!0, byte), "{len} bytes");
        }
    }
}
