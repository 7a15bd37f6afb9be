"""Lists what tells languages and scripts apart: letters, frequent words, frequent characters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Language:
    """Its letters beyond ASCII, and its most frequent words."""

    letters: frozenset[str]
    words: frozenset[str]


def _language(letters: str, words: str) -> Language:
    return Language(frozenset(letters), frozenset(words.split()))


LANGUAGES = (
    _language(
        "éèêàçïöüñ", "the of and to in is that for it with as was on be are this by not you have from or at an can"
    ),
    _language(
        "àâæçéèêëîïôœùûüÿ", "le la les de des du et est un une que qui dans pour pas sur au par il ne se en ce à vous"
    ),
    _language(
        "äöüß",
        "der die das und ist von den zu mit nicht ein eine für auf im dem des sich werden auch wird sind bei oder",
    ),
    _language("áéíñóúüºª", "de la el los las y en que un una por con para es del se no su al lo como más si le me mi"),
    _language("áâãàçéêíóôõúüºª", "de a o os as e em que um uma por com para é do da não se no na dos ao mais foi são"),
    _language("àèéìòùîí", "di il la le e che un una in per con non è del della si da i al dei sono come più nel gli"),
    _language("éëïóöüèáê", "de het een en van is dat niet op te zijn voor met die aan er om ook naar in ik je"),
    _language("æøåéäö", "og i at er en det den til på som for af av de med ikke har et kan vi var å jeg"),
    _language("åäöéü", "och i att är en det som på för av med den till inte har om ett de kan jag du"),
    _language("åäöšž", "ja on ei se että ovat oli joka mutta myös kun niin tai hän ole voi sen en ne"),
    _language("áðéíóúýþæö", "og að í er á sem til um við en það var ekki fyrir með af"),
    _language(
        "áčďéěíňóřšťúůýžöü", "a je se na v že to s z do o i k jsou pro jako ale který by při od není být si ve tak jak"
    ),
    _language(
        "áäčďéíĺľňóôŕšťúýžöü", "a je sa na v že to s z do o i k sú pre ako ale ktorý by pri od nie byť si vo tak"
    ),
    _language("ąćęłńóśźż", "i w na z się do nie to jest że o jak po za od dla przez są oraz przy a co ale ze go"),
    _language("áéíóöőúüű", "a az és hogy nem is egy ez van meg de csak vagy ha már kell volt ki el mint"),
    _language("ăâîșțşţ", "și şi de la în a cu nu care pe un o din pentru este că sunt mai prin sa să se al ale"),
    _language("čćđšž", "i je u na se da za su od s a o kao koji nije ne što bi sa iz to in v so ki z pa po tudi kot"),
    _language("çğıİöşüâîû", "ve bir bu için ile da de çok olarak daha olan gibi var ne ama değil kadar o en sonra her"),
    _language("ąčęėįšųūž", "ir yra kad su į iš tai kaip bet ar už buvo o ne nuo per"),
    _language("āčēģīķļņšūž", "un ir ar no par kas uz bet kā tas pie to vai ka"),
    _language("äöõüšž", "ja on ei et see oli kui mis ka ning või aga ta"),
    _language(
        "", "yang dan di dari untuk dengan ini itu pada tidak dalam adalah akan ke oleh atau bisa anda juga saya"
    ),
    _language("", "et in est non ad cum ut sed qui per quod dolor sit amet ab ex vel aut"),
    _language("", "ya na wa kwa ni katika za la kama hii hiyo cha ang ng sa mga ay at para"),
    _language("àçèéíïòóúü", "de la el i que a en les per amb és un una del els no es"),
)

FREQUENT = {
    "cyrillic": (frozenset("оеаинтсрвлк"), 0.62),
    "greek": (frozenset("αοιετσςνηυρπκ"), 0.68),
    "hebrew": (frozenset("יוהלאתבשמרנ"), 0.62),
    "arabic": (frozenset("اليينموتربعدةه"), 0.62),
    "thai": (frozenset("านรอกเงมยลวดทส่้ัีิ"), 0.7),
    "hangul": (frozenset("이다는의가을에고지한하로기은서를도사인시대수나어리"), 0.2),
    "han": (
        frozenset(
            "的一是不了在有人我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多"
            "经么去法学如都同现当没动面起看定天分还进好小部其些主样理心本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性"
            "知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世"
            "這個們來為國說時會對發過後裡種經麼學現當沒動進樣開從實軍與長機關點業將兩間問戰頭體見產話給網請訂單貨退件電"
            "包软件档版数据系统命令安装文件目录件號碼數據統檔請設置品客户订单"
        ),
        0.22,
    ),
    "kanji": (
        frozenset(
            "日一人大国年会本中長出三同時政事自行社見月分議後前民生連五発間対上部東者党地合市業内相方四定今回新場金員九入選立開手米力学問"
            "高代明実円関決子動京全目表戦経通外最言氏現理調体化田当八六約主題下首意法不来作性的要用制治度務強気小七成期公野協取都和統以機"
            "品商件版文書使名数次変更設示場合必利可編集"
        ),
        0.2,
    ),
}
"""Of a script, the characters that a text mostly consists of, and the least share of them in a right decoding."""
