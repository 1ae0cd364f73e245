//! Exact decimals from text: `-12.50`, `3e2`, `0.000001`.
//!
//! In: the text of a JSON number, or of a string in the same notation. Out: the value times 10^scale as an integer.
//! Promise: never rounds. A digit other than zero behind the scale is refused, and so is a value that needs more digits
//! than the precision. Trailing zeros carry no value and may stand behind the scale.

/// Why a text is no decimal of this column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoDecimal {
    /// Not a number at all.
    Syntax,
    /// A number that does not fit precision and scale.
    Range,
}

/// The value times 10^`scale`, with at most `precision` digits.
pub(crate) fn parse(text: &str, precision: u8, scale: i8) -> Result<i128, NoDecimal> {
    match short(text, precision, scale) {
        Some(value) => Ok(value),
        None => long(text, precision, scale),
    }
}

/// The usual number: at most 18 digits with those the scale asks for, none behind the scale, no exponent. `None`: another
/// one, or none that fits.
fn short(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let scale = usize::try_from(scale).ok()?;
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mut value, mut digits, mut point) = (0_u64, 0_usize, None);
    for byte in unsigned.bytes() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 && digits < 18 {
            value = value * 10 + u64::from(digit);
            digits += 1;
        } else if byte == b'.' && point.is_none() && digits > 0 {
            point = Some(digits);
        } else {
            return None;
        }
    }
    let fraction = match point {
        Some(whole) if whole == digits => return None,
        Some(whole) => digits - whole,
        None => 0,
    };
    let zeros = scale.checked_sub(fraction).filter(|zeros| digits > 0 && digits + zeros <= 18)?;
    let value = value * 10_u64.pow(u32::try_from(zeros).ok()?);
    if value >= 10_u64.pow(u32::from(precision.min(18))) {
        return None;
    }
    let value = i128::from(value);
    Some(if unsigned.len() < text.len() { -value } else { value })
}

fn long(text: &str, precision: u8, scale: i8) -> Result<i128, NoDecimal> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = split_exponent(unsigned)?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_point = mantissa.len() > whole.len();
    let digits_only = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || (has_point && fraction.is_empty()) {
        return Err(NoDecimal::Syntax);
    }
    if !digits_only(whole) || !digits_only(fraction) {
        return Err(NoDecimal::Syntax);
    }
    let fraction_digits = i64::try_from(fraction.len()).map_err(|_| NoDecimal::Range)?;

    let mut value = 0i128;
    // Zeros are held back until a digit follows them, so that trailing ones never count against the scale.
    let mut zeros = 0u32;
    let mut significant = 0u32;
    for digit in whole.bytes().chain(fraction.bytes()).map(|b| b - b'0') {
        if digit == 0 {
            zeros += u32::from(value != 0);
            continue;
        }
        significant += zeros + 1;
        if significant > u32::from(precision) {
            return Err(NoDecimal::Range);
        }
        value = value * 10i128.pow(zeros + 1) + i128::from(digit);
        zeros = 0;
    }
    if value == 0 {
        return Ok(0);
    }
    let shift = exponent
        .saturating_sub(fraction_digits)
        .saturating_add(i64::from(zeros))
        .saturating_add(i64::from(scale));
    let shift = u32::try_from(shift).map_err(|_| NoDecimal::Range)?;
    if significant.saturating_add(shift) > u32::from(precision) {
        return Err(NoDecimal::Range);
    }
    let value = value * 10i128.pow(shift);
    Ok(if negative { -value } else { value })
}

/// The number whose value times 10^`scale` this is.
pub(crate) fn shown(value: i128, scale: i8) -> String {
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// Mantissa and exponent; an exponent beyond 18 digits saturates, which is out of range for any value but zero.
fn split_exponent(text: &str) -> Result<(&str, i64), NoDecimal> {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else {
        return Ok((text, 0));
    };
    let (negative, digits) = match exponent.as_bytes().first() {
        Some(b'-') => (true, &exponent[1..]),
        Some(b'+') => (false, &exponent[1..]),
        _ => (false, exponent),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NoDecimal::Syntax);
    }
    let size = digits
        .bytes()
        .fold(0i64, |sum, b| sum.saturating_mul(10).saturating_add(i64::from(b - b'0')));
    Ok((mantissa, if negative { -size } else { size }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{NoDecimal, long, parse, short};

    fn check(text: &str, precision: u8, scale: i8, expect: Result<i128, NoDecimal>) {
        assert_eq!(parse(text, precision, scale), expect, "{text} as decimal({precision},{scale})");
        assert_eq!(long(text, precision, scale), expect, "{text} as decimal({precision},{scale})");
    }

    proptest! {
        #[test]
        fn the_short_way_gives_what_the_long_one_gives(
            text in "-?[0-9]{0,20}(\\.[0-9]{0,4}0{0,3})?[e.x-]?[0-9]?",
            precision in 1_u8..=38,
            scale in 0_i8..=20,
        ) {
            if let Some(value) = short(&text, precision, scale) {
                prop_assert_eq!(long(&text, precision, scale), Ok(value), "{}", text);
            }
        }
    }

    #[test]
    fn usual_numbers_go_the_short_way() {
        for text in ["0", "-0", "12", "12.5", "-12.50", "000012.50", "9999999.99"] {
            assert_eq!(short(text, 12, 2).ok_or(NoDecimal::Syntax), long(text, 12, 2), "{text}");
        }
    }

    #[test]
    fn text_becomes_the_exact_number_or_is_refused() {
        check("12.5", 18, 2, Ok(1250));
        check("-12.50", 18, 2, Ok(-1250));
        check("12.500", 18, 2, Ok(1250));
        check("12.501", 18, 2, Err(NoDecimal::Range));
        check("0.1", 38, 38, Ok(10i128.pow(37)));
        check("-0", 5, 2, Ok(0));
        check("0e999999999999999999999", 5, 2, Ok(0));
        check("1e2", 5, 2, Ok(10_000));
        check("1E+2", 5, 2, Ok(10_000));
        check("1e3", 5, 2, Err(NoDecimal::Range));
        check("125e-2", 5, 2, Ok(125));
        check("1250e-3", 5, 2, Ok(125));
        check("1e-3", 5, 2, Err(NoDecimal::Range));
        check("1e99999999999999999999", 5, 2, Err(NoDecimal::Range));
        check("999.99", 5, 2, Ok(99_999));
        check("1000", 5, 2, Err(NoDecimal::Range));
        check("000000000000000000000000000000000000000000001.50", 5, 2, Ok(150));
        check(&"9".repeat(38), 38, 0, Ok(10i128.pow(38) - 1));
        check(&"9".repeat(39), 38, 0, Err(NoDecimal::Range));
        check(&format!("1{}", "0".repeat(38)), 38, 0, Err(NoDecimal::Range));
    }

    #[test]
    fn what_is_no_number_is_a_syntax_error() {
        for text in [
            "", "-", ".", "1.", ".5", "1e", "1e+", "+1", "1,5", "0x1", "NaN", "1 ", "--1", "1.2.3",
            "1e2e3",
        ] {
            check(text, 38, 10, Err(NoDecimal::Syntax));
        }
    }
}
