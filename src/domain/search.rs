//! Search terms of texts, independent of case, accents and letter forms.
//!
//! Both databases get the same terms and never split texts themselves, so they find the same products.

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use crate::domain::NewProduct;

/// Prefix of a name's terms, which are stored a second time with it.
/// No term contains it.
const IN_NAME: char = '=';

/// Maximum length of a term in characters; longer ones are cut.
const MAX_TERM_CHARS: usize = 64;

/// The terms of a search; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchTerms {
    whole: Vec<String>,
    last: String,
}

/// Relevance tier of a product for a search, best first.
///
/// Tiers are used instead of a finer rank. A rank by frequencies differs between the databases and changes with every
/// new product, so pages could be neither consistent nor continued, and finding the best would mean reading all
/// matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RelevanceTier {
    /// Every term is in the name.
    Whole = 4,
    /// Every term is in the name, the last one as a prefix.
    Name = 3,
    /// Every term is somewhere, and at least one is in the name.
    Partly = 2,
    /// Every term is in the description.
    Anywhere = 1,
}

/// A condition on stored terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The product has this term.
    Term(String),
    /// The product has a term with this prefix.
    Prefix(String),
    /// All of these are true.
    All(Vec<Condition>),
    /// One of these is true.
    Any(Vec<Condition>),
    /// The first is true and the second is false.
    Except(Box<(Condition, Condition)>),
}

impl RelevanceTier {
    /// All tiers, best first.
    pub const ALL: [Self; 4] = [Self::Whole, Self::Name, Self::Partly, Self::Anywhere];

    /// Returns the number in a cursor.
    pub const fn number(self) -> i64 {
        self as i64
    }

    /// Returns the tier with this number.
    pub fn of_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.number() == number)
    }
}

impl SearchTerms {
    /// Maximum length of a search text in characters.
    pub const MAX_CHARS: usize = NewProduct::MAX_NAME_CHARS;
    /// Maximum terms of a search.
    pub const MAX_TERMS: usize = 16;

    /// Splits a search text into terms.
    ///
    /// # Errors
    /// A message: too long, too many terms, or none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let chars = text.chars().count();
        if chars > Self::MAX_CHARS {
            return Err(format!("has {chars} characters; at most {} are allowed", Self::MAX_CHARS));
        }
        let mut words: Vec<_> = words_of(text).collect();
        let last = words.pop().ok_or("has no letter and no digit")?;
        let mut seen = std::collections::HashSet::from([last.clone()]);
        words.retain(|word| seen.insert(word.clone()));
        if seen.len() > Self::MAX_TERMS {
            return Err(format!("has {} words; at most {} are allowed", seen.len(), Self::MAX_TERMS));
        }
        Ok(Self { whole: words, last })
    }

    /// Returns the condition for all matching products of any tier.
    pub fn found(&self) -> Condition {
        self.each(false, true)
    }

    /// Returns the condition for exactly this tier.
    pub fn at(&self, tier: RelevanceTier) -> Condition {
        let some = Condition::Any(vec![
            Condition::Any(self.whole.iter().map(|word| Condition::Term(in_name(word))).collect()),
            Condition::Prefix(in_name(&self.last)),
        ]);
        match tier {
            RelevanceTier::Whole => self.each(true, false),
            RelevanceTier::Name => except(self.each(true, true), self.each(true, false)),
            RelevanceTier::Partly => except(Condition::All(vec![self.found(), some]), self.each(true, true)),
            RelevanceTier::Anywhere => except(self.found(), some),
        }
    }

    fn each(&self, name: bool, prefix: bool) -> Condition {
        let spell = |word: &String| if name { in_name(word) } else { word.clone() };
        let last = if prefix { Condition::Prefix(spell(&self.last)) } else { Condition::Term(spell(&self.last)) };
        Condition::All(self.whole.iter().map(|word| Condition::Term(spell(word))).chain([last]).collect())
    }
}

impl Condition {
    /// Formats the condition as a PostgreSQL `tsquery`. Terms have only letters, digits and marks, so nothing is
    /// escaped.
    pub fn as_tsquery(&self) -> String {
        self.write(&Dialect { all: " & ", except: " & !", word: |word| format!("'{word}'"), prefix: ":*", quote: '\'' })
    }

    /// Formats the condition for SQLite's FTS5.
    pub fn as_fts5(&self) -> String {
        self.write(&Dialect {
            all: " AND ",
            except: " NOT ",
            word: |word| format!("\"{word}\""),
            prefix: " *",
            quote: '"',
        })
    }

    fn write(&self, dialect: &Dialect) -> String {
        let any = if dialect.quote == '"' { " OR " } else { " | " };
        let join = |parts: &[Self], between: &str| {
            let written: Vec<_> = parts.iter().map(|part| part.write(dialect)).filter(|part| part != "()").collect();
            format!("({})", written.join(between))
        };
        match self {
            Self::Term(word) => (dialect.word)(word),
            Self::Prefix(word) => format!("{}{}", (dialect.word)(word), dialect.prefix),
            Self::All(parts) => join(parts, dialect.all),
            Self::Any(parts) => join(parts, any),
            Self::Except(pair) => format!("({}{}{})", pair.0.write(dialect), dialect.except, pair.1.write(dialect)),
        }
    }
}

/// Query syntax of one database.
struct Dialect {
    all: &'static str,
    except: &'static str,
    word: fn(&str) -> String,
    prefix: &'static str,
    quote: char,
}

/// Returns the stored terms of a product, separated by spaces.
/// These are its distinct terms, and those of its name again with the prefix `=`. They contain only letters, digits,
/// marks and `=`.
pub fn stored_words(name: &str, description: &str) -> String {
    let mut seen = std::collections::HashSet::new();
    let mut stored = String::new();
    let names = words_of(name).flat_map(|word| [in_name(&word), word]);
    for word in names.chain(words_of(description)) {
        if !seen.contains(&word) {
            if !stored.is_empty() {
                stored.push(' ');
            }
            stored.push_str(&word);
            seen.insert(word);
        }
    }
    stored
}

fn except(one: Condition, other: Condition) -> Condition {
    Condition::Except(Box::new((one, other)))
}

fn in_name(word: &str) -> String {
    format!("{IN_NAME}{word}")
}

/// Splits a text into terms in order.
/// Scripts without spaces between words are split into characters, since otherwise only whole sentences could be found.
fn words_of(text: &str) -> impl Iterator<Item = String> {
    let folded = fold(text);
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    for letter in folded.chars() {
        let alone = stands_alone(letter) && letter.is_alphanumeric();
        if alone || letter.is_alphanumeric() {
            match words.last_mut().filter(|_| open && !alone) {
                Some(word) => word.push(letter),
                None => words.push(letter.into()),
            }
            open = !alone;
        } else if is_combining_mark(letter) {
            // Vowel signs of Indic and other scripts belong to their letter. A term never starts with one.
            if let Some(word) = words.last_mut().filter(|_| open) {
                word.push(letter);
            }
        } else {
            open = false;
        }
    }
    words.into_iter().map(|word| match word.char_indices().nth(MAX_TERM_CHARS) {
        Some((end, _)) => word[..end].to_owned(),
        None => word,
    })
}

/// Folds a text: resolves compatibility forms, removes diacritics and case.
/// Letters without a decomposition are replaced by their usual ASCII spelling.
fn fold(text: &str) -> String {
    let bare = text.nfkd().filter(|letter| !is_diacritic(*letter)).flat_map(char::to_lowercase);
    let mut folded = String::with_capacity(text.len());
    for letter in bare.nfkd().filter(|letter| !is_diacritic(*letter)) {
        match spelled_out(letter) {
            Some(letters) => folded.push_str(letters),
            None => folded.push(letter),
        }
    }
    folded.nfc().collect()
}

/// Returns whether a character is a diacritic: a mark of any script, a Hebrew point or an Arabic vowel sign.
const fn is_diacritic(letter: char) -> bool {
    matches!(letter, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}'..='\u{5c2}'
        | '\u{5c4}'..='\u{5c5}' | '\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}'
        | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{fe20}'..='\u{fe2f}' | '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}')
}

const fn spelled_out(letter: char) -> Option<&'static str> {
    Some(match letter {
        'ß' => "ss",
        'ø' => "o",
        'ł' => "l",
        'æ' => "ae",
        'œ' => "oe",
        'đ' | 'ð' => "d",
        'þ' => "th",
        'ħ' => "h",
        'ŧ' => "t",
        'ŋ' => "n",
        'ı' => "i",
        'ĸ' => "k",
        'ς' => "σ",
        'ə' => "e",
        _ => return None,
    })
}

/// Returns whether a character is a term by itself: Chinese characters and Japanese syllables.
const fn stands_alone(letter: char) -> bool {
    matches!(letter, '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        words_of(text).collect()
    }

    #[test]
    fn case_accents_and_forms_of_letters_make_no_difference() {
        for (one, other) in [
            ("Naïve CAFÉ", "naive cafe"),
            ("e\u{301}clair", "Éclair"),
            ("Straße", "STRASSE"),
            ("GRÖẞE", "grosse"),
            ("smørrebrød Łódź", "smorrebrod lodz"),
            ("Æon œuvre", "AEON OEUVRE"),
            ("İstanbul ılık", "istanbul ilik"),
            ("ΟΔΟΣ", "οδός"),
            ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
            ("ﬁne ①", "fine 1"),
            ("ё", "Е"),
            ("שָׁלוֹם", "שלום"),
            ("co\u{ad}operate", "cooperate"),
        ] {
            assert_eq!(words(one), words(other), "{one}");
        }
    }

    #[test]
    fn terms_consist_of_letters_digits_and_marks() {
        assert_eq!(words("snake_case-2.5\"x'y\" a&b|!(c):*"), ["snake", "case", "2", "5", "x", "y", "a", "b", "c"]);
        assert_eq!(words("日本語 の本x1"), ["日", "本", "語", "の", "本", "x1"]);
        assert_eq!(words("がぎ"), ["が", "ぎ"], "a voiced syllable is another one");
        assert_eq!(words("हिन्दी किताब"), ["हिन्दी", "किताब"]);
        assert_eq!(words("เสื้อยืด"), ["เสื้อยืด"]);
        assert_eq!(words("한국어"), ["한국어"]);
        assert_eq!(words("🦀 = \0 … \u{301}"), Vec::<String>::new());
        assert_eq!(words(&"x".repeat(1_000)), ["x".repeat(64)]);
    }

    #[test]
    fn terms_of_a_name_are_also_stored_with_a_prefix() {
        assert_eq!(stored_words("Red Lamp", "A lamp, red."), "=red red =lamp lamp a");
        assert_eq!(stored_words("🦀", ""), "");
    }

    #[test]
    fn a_search_without_terms_or_with_too_many_is_rejected() {
        assert!(SearchTerms::parse("&|!()\"'*🦀").expect_err("none").contains("no letter"));
        assert!(SearchTerms::parse(&"a ".repeat(101)).expect_err("long").contains("202 characters"));
        let many: Vec<_> = (0..17).map(|number| number.to_string()).collect();
        assert!(SearchTerms::parse(&many.join(" ")).expect_err("many").contains("17 words"));
        assert!(SearchTerms::parse(&many[1..].join(" ")).is_ok());
        assert_eq!(SearchTerms::parse("a b a"), SearchTerms::parse("b a"));
    }

    #[test]
    fn tiers_are_formatted_for_both_databases() {
        let words = SearchTerms::parse("red la").expect("words");
        assert_eq!(words.at(RelevanceTier::Whole).as_tsquery(), "('=red' & '=la')");
        assert_eq!(words.at(RelevanceTier::Name).as_tsquery(), "(('=red' & '=la':*) & !('=red' & '=la'))");
        assert_eq!(
            words.at(RelevanceTier::Partly).as_fts5(),
            r#"((("red" AND "la" *) AND (("=red") OR "=la" *)) NOT ("=red" AND "=la" *))"#
        );
        let one = SearchTerms::parse("la").expect("a word");
        assert_eq!(one.at(RelevanceTier::Anywhere).as_fts5(), r#"(("la" *) NOT ("=la" *))"#);
        assert_eq!(one.at(RelevanceTier::Anywhere).as_tsquery(), "(('la':*) & !('=la':*))");
    }

    proptest! {
        #[test]
        fn stored_terms_contain_no_query_syntax(text in "\\PC{0,40}", other in ".{0,40}") {
            for word in stored_words(&text, &other).split(' ').filter(|word| !word.is_empty()) {
                let word = word.strip_prefix(IN_NAME).unwrap_or(word);
                prop_assert!(!word.is_empty());
                prop_assert!(word.chars().all(|c| !c.is_ascii() || c.is_ascii_alphanumeric()), "{word}");
                prop_assert!(word.chars().all(|c| c.is_alphanumeric() || is_combining_mark(c)), "{word}");
            }
        }

        #[test]
        fn a_stored_text_is_found_by_each_of_its_terms(text in "\\PC{0,60}") {
            let stored = stored_words(&text, "");
            for word in words_of(&text) {
                prop_assert!(stored.split(' ').any(|known| known == word), "{word} of {text}");
                let again: Vec<_> = words_of(&word).collect();
                prop_assert_eq!(again.concat(), word);
            }
        }
    }
}
