//! Strings that often break programs: reserved words, unusual characters, and injections for every interpreter. They
//! are generated, so each kind is complete.

/// Returns all strings: none empty, none with a NUL, each at most 100 characters long.
pub fn strings() -> Vec<String> {
    let mut all: Vec<String> = WORDS.split_whitespace().map(str::to_owned).collect();
    all.extend(SENTENCES.iter().map(|text| (*text).to_owned()));
    all.extend(numbers());
    all.extend(characters());
    all.extend(mixtures());
    all.retain(|text| !text.is_empty() && !text.contains('\0') && text.chars().count() <= 100);
    all.sort_unstable();
    all.dedup();
    all
}

/// Text that languages, file systems, shells and databases interpret.
const WORDS: &str = "undefined undef null NULL (null) nil NIL true false True False TRUE FALSE None hasOwnProperty then \
    constructor __proto__ prototype toString \\ \\\\ 0 1 -1 $ {} [] () // /* */ -- # ; ' \" '' \"\" ` `` . .. ... / ~ ~root \
    CON PRN AUX CLOCK$ NUL A: ZZ: COM1 LPT1 file:///dev/zero /dev/null \
    NaN nan Infinity -Infinity INF 1#INF -1#IND 1#QNAN 0x0 0xffffffff 0xabad1dea 1/0 0/0 $HOME ${HOME} $(id) `id` %s %d %n %x %@ %08x \
    %00 %0a %20 %2e%2e%2f ../../etc/passwd%00 ..\\..\\win.ini {{7*7}} ${7*7} <%=7*7%> #{7*7} ${jndi:ldap://127.0.0.1/a} {0} {0:x} \
    <script>alert(1)</script> <img/src=x/onerror=alert(1)> javascript:alert(1) \"><svg/onload=alert(1)> ' onmouseover='x \
    1;DROP/**/TABLE/**/users 1'or'1'='1 ' \" ');-- 1;-- * ** % _ ? ?? :name @@version $1 $2 $$ $tag$ E'\\\\' x'00' U&'\\0061' \
    <?xml?> <![CDATA[]]> &lt; &amp; &#0; <!--#exec--> SCUNTHORPE penistone \u{fdfa} 2e308 1e-400 01000 08 1.0.0.1 1,5 1_000";

/// The same, for text that contains spaces.
const SENTENCES: &[&str] = &[
    "Robert'); DROP TABLE products; --",
    "' OR 1=1 -- ",
    "\" OR \"\" = \"",
    "admin' /*",
    "; cat /etc/passwd",
    "| ls -la",
    "&& sleep 1",
    "<a href=\"javascript:alert(1)\">x</a>",
    "<iframe src=x></iframe>",
    "Set-Cookie: a=b\r\nX: y",
    "a\r\n\r\nHTTP/1.1 200 OK",
    "line\nline",
    "tab\ttab",
    "{\"json\": [1, null, \"\\u0000\"]}",
    "\\u0041 is not A",
    "=1+1",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)",
    "pm:products:1 \r\nFLUSHALL\r\n",
    "*3\r\n$3\r\nSET\r\n",
    "\u{1b}[31mred\u{1b}[0m",
    "\u{7}bell\u{8}back",
    "If you're reading this, you've been in a coma.",
];

fn numbers() -> Vec<String> {
    let edges = [8, 16, 31, 32, 53, 63, 64, 127, 128];
    let edges = edges.into_iter().map(|bits| 2_f64.powi(bits)).flat_map(|edge| [edge - 1.0, edge, -edge, -edge - 1.0]);
    let mut all: Vec<String> = edges.map(|edge| format!("{edge:.0}")).collect();
    all.extend(["9".repeat(96), format!("0.{}1", "0".repeat(90)), "1".repeat(40), format!("1e{}", "9".repeat(9))]);
    all.extend(
        ["\u{661}\u{662}\u{663}", "\u{ff11}\u{ff12}", "\u{2162}", "\u{bd}", "1\u{a0}000", "-0", "+1", "1.", ".1"]
            .map(str::to_owned),
    );
    all
}

/// Every special single character: control characters, spaces, zero-width characters, bidirectional marks, and
/// characters at the ends of planes or outside them.
fn characters() -> Vec<String> {
    let ranges = [
        0x01..=0x20,
        0x7f..=0xa0,
        0xad..=0xad,
        0x300..=0x305,
        0x600..=0x605,
        0x61c..=0x61c,
        0x180e..=0x180e,
        0x1680..=0x1680,
        0x2000..=0x200f,
        0x2028..=0x202f,
        0x205f..=0x206f,
        0x3000..=0x3000,
        0xd7fb..=0xd7ff,
        0xe000..=0xe001,
        0xfdd0..=0xfdd1,
        0xfe00..=0xfe0f,
        0xfeff..=0xfeff,
        0xfff0..=0xffff,
        0x1_0000..=0x1_0000,
        0x1_f600..=0x1_f603,
        0x1_ffff..=0x1_ffff,
        0xe_0001..=0xe_0001,
        0xe_0061..=0xe_007a,
        0x10_fffd..=0x10_ffff,
    ];
    let single = ranges.into_iter().flatten().filter_map(char::from_u32);
    single.map(|character| format!("a{character}b")).collect()
}

/// Combined characters, characters that grow on case conversion, and characters whose shape depends on their neighbors.
fn mixtures() -> Vec<String> {
    let joined = |parts: &[char], joint: &str| parts.iter().map(char::to_string).collect::<Vec<_>>().join(joint);
    let mut all = vec![
        joined(&['\u{1f468}', '\u{1f469}', '\u{1f467}', '\u{1f466}'], "\u{200d}"),
        joined(&['\u{1f3f3}', '\u{1f308}'], "\u{fe0f}\u{200d}"),
        "\u{1f1fa}\u{1f1f8}\u{1f1f7}\u{1f1fa}\u{1f1f8}".to_owned(),
        "\u{1f44b}\u{1f3ff}".to_owned(),
        // Zalgo text: stacked combining marks.
        format!("z{}a{}", "\u{335}\u{317}\u{36b}".repeat(14), "\u{34f}\u{30d}".repeat(14)),
        "\u{202e}txt.exe\u{202c}".to_owned(),
        "\u{2066}test\u{2067}\u{2068}".to_owned(),
        "\u{feff}bom".to_owned(),
        "\u{200b}invisible\u{200b}".to_owned(),
    ];
    // Composed and decomposed characters, ligatures, and letters with unusual case mappings.
    let pairs = "é e\u{301} Å A\u{30a} \u{212b} ﬁ ﬄ ß ẞ İ i\u{307} ı ſ ς Σ ŉ ǰ Ⱥ Ⱦ ⱥ ѐ \u{390} ﷽ 𝐛𝐨𝐥𝐝 𝕯𝖔𝖚𝖇 ｆｕｌｌ ⒫⒜⒭ ˙ɐnbᴉlɐ 田中さん 사회과학원 𠜎𠜱𠝹 \
        ثم مُنَاقَشَةُ בְּרֵאשִׁית ਪੰਜਾਬੀ ภาษาไทย Ω≈ç√∫˜µ åß∂ƒ©˙∆˚¬… œ∑´®† ¸˛Ç◊ı˜ ЁЂЃЄЅІЇ ⁰⁴⁵ ₀₁₂ ヽ༼ຈل͜ຈ༽ﾉ (╯°□°）╯︵ ┻━┻ ¯\\_(ツ)_/¯ \
        జ్ఞ\u{200c}ా لُلُصّبُلُلصّبُررً ॣ ॣh ॣ ॣ 冗";
    all.extend(pairs.split(' ').map(|text| text.trim().to_owned()));
    all
}
