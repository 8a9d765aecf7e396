//! Masks passwords in all output; in doubt it masks too much.

/// Masks the password of every URL in `text`: `postgres://pm:***@db/pm`.
pub fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`')).unwrap_or(after.len());
        let (address, tail) = after.split_at(end);
        shown.push_str(&redact_address(address));
        rest = tail;
    }
    shown.push_str(rest);
    redact_parameter(shown)
}

fn redact_address(address: &str) -> String {
    // A password may contain an unencoded `@`, so the last `@` ends it.
    let Some((userinfo, host)) = address.rsplit_once('@') else { return address.to_owned() };
    match userinfo.split_once(':') {
        Some((user, _)) => format!("{user}:***@{host}"),
        None => address.to_owned(),
    }
}

fn redact_parameter(mut text: String) -> String {
    const NAME: &str = "password=";
    let mut from = 0;
    while let Some(at) = text[from..].find(NAME) {
        let start = from + at + NAME.len();
        let value = &text[start..];
        let end = value.find(|c: char| c.is_whitespace() || matches!(c, '&' | '"' | '\'' | '`')).unwrap_or(value.len());
        text.replace_range(start..start + end, "***");
        from = start + 3;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn passwords_are_masked_anywhere_in_a_text() {
        for (text, shown) in [
            ("postgres://pm:s3cret@db:5432/pm", "postgres://pm:***@db:5432/pm"),
            ("redis://:s3cret@cache:6379", "redis://:***@cache:6379"),
            ("cannot reach `amqp://a:s3/c@ret@host/`: refused", "cannot reach `amqp://a:***@host/`: refused"),
            ("redis://:one@a:1,redis://:two@b:2", "redis://:***@b:2"),
            (
                "postgres://db/pm?user=pm&password=s3cret&sslmode=require",
                "postgres://db/pm?user=pm&password=***&sslmode=require",
            ),
            ("s3://bucket/prefix and sqlite://pm.db", "s3://bucket/prefix and sqlite://pm.db"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }
}
