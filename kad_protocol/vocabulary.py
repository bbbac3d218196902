"""The words that people use for the values of enums: labels in Indonesian and English, official codes, abbreviations.

One table for everything that reads or shows words: documents, filters, the command line, pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from kad_protocol.errors import InvalidInputError, Reason

__all__ = ["Term", "find", "label", "terms"]


@dataclass(frozen=True, slots=True)
class Term:
    """One value of an enum."""

    #: Name in the contract without its prefix, for example ``COOPERATION_AGREEMENT``.
    name: str
    number: int
    indonesian: str
    english: str
    #: Codes and abbreviations, lower case, for example ``pks``, ``2.11``.
    aliases: tuple[str, ...]
    #: The official code or abbreviation, for example ``PKS``, ``2.11``, ``KSDD``; empty if there is none.
    code: str = ""

    def label(self, language: str = "id") -> str:
        """The label in a language; English for all but Indonesian."""
        return self.indonesian if language == "id" else self.english


_WORDS: dict[str, list[tuple[str, str, str, tuple[str, ...]]]] = {
    "Sector": [
        ("EDUCATION", "pendidikan", "education", ("1.01",)),
        ("HEALTH", "kesehatan", "health", ("1.02",)),
        (
            "PUBLIC_WORKS",
            "pekerjaan umum dan penataan ruang",
            "public works and spatial planning",
            ("1.03", "pekerjaan umum", "tata ruang", "pu"),
        ),
        ("HOUSING", "perumahan rakyat dan kawasan permukiman", "housing and settlements", ("1.04", "permukiman")),
        ("PUBLIC_ORDER", "ketenteraman, ketertiban umum dan pelindungan masyarakat", "public order and protection", ("1.05", "trantibum")),
        ("SOCIAL", "sosial", "social affairs", ("1.06",)),
        ("LABOUR", "tenaga kerja", "labour", ("2.07",)),
        ("WOMEN_AND_CHILDREN", "pemberdayaan perempuan dan pelindungan anak", "women and child protection", ("2.08",)),
        ("FOOD", "pangan", "food", ("2.09",)),
        ("LAND", "pertanahan", "land", ("2.10",)),
        ("ENVIRONMENT", "lingkungan hidup", "environment", ("2.11", "lh", "persampahan")),
        ("CIVIL_REGISTRATION", "administrasi kependudukan dan pencatatan sipil", "civil registration", ("2.12", "adminduk")),
        ("COMMUNITY_AND_VILLAGE", "pemberdayaan masyarakat dan desa", "communities and villages", ("2.13",)),
        ("POPULATION_AND_FAMILY", "pengendalian penduduk dan keluarga berencana", "population and family planning", ("2.14",)),
        ("TRANSPORT", "perhubungan", "transport", ("2.15",)),
        ("COMMUNICATION", "komunikasi dan informatika", "communication and informatics", ("2.16", "kominfo")),
        ("COOPERATIVES", "koperasi, usaha kecil dan menengah", "cooperatives and small enterprises", ("2.17", "koperasi", "ukm")),
        ("INVESTMENT", "penanaman modal", "investment", ("2.18", "investasi")),
        ("YOUTH_AND_SPORT", "kepemudaan dan olahraga", "youth and sport", ("2.19",)),
        ("STATISTICS", "statistik", "statistics", ("2.20",)),
        ("CRYPTOGRAPHY", "persandian", "cryptography", ("2.21",)),
        ("CULTURE", "kebudayaan", "culture", ("2.22",)),
        ("LIBRARIES", "perpustakaan", "libraries", ("2.23",)),
        ("ARCHIVES", "kearsipan", "archives", ("2.24",)),
        ("FISHERIES", "kelautan dan perikanan", "marine affairs and fisheries", ("3.25",)),
        ("TOURISM", "pariwisata", "tourism", ("3.26",)),
        ("AGRICULTURE", "pertanian", "agriculture", ("3.27",)),
        ("FORESTRY", "kehutanan", "forestry", ("3.28",)),
        ("ENERGY", "energi dan sumber daya mineral", "energy and mineral resources", ("3.29", "esdm")),
        ("TRADE", "perdagangan", "trade", ("3.30",)),
        ("INDUSTRY", "perindustrian", "industry", ("3.31",)),
        ("TRANSMIGRATION", "transmigrasi", "transmigration", ("3.32",)),
    ],
    "Instrument": [
        ("JOINT_AGREEMENT", "Kesepakatan Bersama", "joint agreement", ("kb", "mou", "nota kesepahaman")),
        ("COOPERATION_AGREEMENT", "Perjanjian Kerja Sama", "cooperation agreement", ("pks", "perjanjian kerjasama")),
        ("MEMORANDUM_OF_AGREEMENT", "Nota Kesepakatan", "memorandum of agreement", ("nk",)),
        ("WORK_PLAN", "Rencana Kerja", "work plan", ("rk",)),
        ("JOINT_DECREE", "Keputusan Bersama", "joint decree", ("skb", "surat keputusan bersama")),
        ("JOINT_REGULATION", "Peraturan Bersama Kepala Daerah", "joint regulation", ("pbkdh", "peraturan bersama")),
        ("REGIONAL_REGULATION", "Peraturan Daerah", "regional regulation", ("perda",)),
        ("HEAD_OF_REGION_REGULATION", "Peraturan Kepala Daerah", "head of region regulation", ("perkada", "pergub", "perbup", "perwali")),
        ("HEAD_OF_REGION_DECREE", "Keputusan Kepala Daerah", "head of region decree", ("kepgub", "kepbup", "kepwal")),
        ("LAW", "Undang-Undang", "law", ("uu",)),
        ("LAW_IN_LIEU", "Peraturan Pemerintah Pengganti Undang-Undang", "law in lieu", ("perppu",)),
        ("GOVERNMENT_REGULATION", "Peraturan Pemerintah", "government regulation", ("pp",)),
        ("PRESIDENTIAL_REGULATION", "Peraturan Presiden", "presidential regulation", ("perpres",)),
        ("MINISTERIAL_REGULATION", "Peraturan Menteri", "ministerial regulation", ("permen", "permendagri")),
        ("MINISTERIAL_DECREE", "Keputusan Menteri", "ministerial decree", ("kepmen",)),
        ("INSTRUCTION", "Instruksi", "instruction", ()),
        ("CIRCULAR", "Surat Edaran", "circular", ("se",)),
        ("LETTER_OF_INTENT", "Surat Niat", "letter of intent", ("loi",)),
        ("FOREIGN_MEMORANDUM", "Memorandum Saling Pengertian", "foreign memorandum", ("msp", "mou luar negeri", "mou_ln")),
        ("DECLARATION", "Deklarasi", "declaration", ()),
        ("STATUTES", "Anggaran Dasar dan Anggaran Rumah Tangga", "statutes", ("ad/art", "ad_art")),
        ("MINUTES", "Notula", "minutes", ("notulen",)),
        ("OTHER", "Lainnya", "other", ()),
    ],
    "CooperationForm": [
        ("OTHER_REGION", "Kerja sama daerah dengan daerah lain", "with another region", ("ksdd",)),
        ("THIRD_PARTY", "Kerja sama daerah dengan pihak ketiga", "with a third party", ("ksdpk",)),
        ("CENTRAL_GOVERNMENT", "Sinergi dengan pemerintah pusat", "with the central government", ("sinergi",)),
        ("FOREIGN_REGION", "Kerja sama dengan pemerintah daerah di luar negeri", "with a regional government abroad", ("ksdpl",)),
        ("FOREIGN_BODY", "Kerja sama dengan lembaga di luar negeri", "with a body abroad", ("ksdll",)),
        ("OTHER", "Lainnya", "other", ()),
    ],
    "CooperationStage": [
        ("PREPARATION", "persiapan", "preparation", ()),
        ("OFFER", "penawaran", "offer", ()),
        ("DRAFTING_AGREEMENT", "penyusunan Kesepakatan Bersama", "drafting the agreement", ()),
        ("SIGNING_AGREEMENT", "penandatanganan Kesepakatan Bersama", "signing the agreement", ()),
        ("COUNCIL_APPROVAL", "persetujuan DPRD", "council approval", ()),
        ("DRAFTING_CONTRACT", "penyusunan Perjanjian Kerja Sama", "drafting the contract", ()),
        ("SIGNING_CONTRACT", "penandatanganan Perjanjian Kerja Sama", "signing the contract", ()),
        ("IMPLEMENTATION", "pelaksanaan", "implementation", ()),
        ("ADMINISTRATION", "penatausahaan", "administration", ()),
        ("REPORTING", "pelaporan", "reporting", ()),
        ("ENDED", "berakhir", "ended", ()),
        ("EXTENDED", "diperpanjang", "extended", ()),
    ],
    "MeetingKind": [
        ("COORDINATION_MEETING", "Rapat koordinasi", "coordination meeting", ("rakor",)),
        ("TECHNICAL_MEETING", "Rapat teknis", "technical meeting", ()),
        ("PLENARY_MEETING", "Rapat pleno", "plenary meeting", ()),
        ("DEVELOPMENT_PLANNING", "Musrenbang", "development planning conference", ()),
        ("WORKSHOP", "Lokakarya", "workshop", ()),
        ("TRAINING", "Pelatihan", "training", ("lokalatih",)),
        ("TECHNICAL_GUIDANCE", "Bimbingan teknis", "technical guidance", ("bimtek",)),
        ("OUTREACH", "Sosialisasi", "outreach", ()),
        ("FOCUS_GROUP", "Diskusi kelompok terpumpun", "focus group", ("fgd",)),
        ("STUDY_VISIT", "Studi banding", "study visit", ("kunjungan kerja",)),
        ("SIGNING", "Penandatanganan", "signing", ()),
        ("MONITORING", "Monitoring dan evaluasi", "monitoring and evaluation", ("monev",)),
        ("DEADLINE", "Batas waktu", "deadline", ()),
        ("OTHER", "Lainnya", "other", ()),
    ],
    "RecordKind": [
        ("BEST_PRACTICE", "Praktik baik", "best practice", ()),
        ("REGULATION", "Regulasi", "regulation", ()),
        ("AGENDA_ITEM", "Agenda", "agenda item", ()),
    ],
    "Audience": [
        ("PUBLIC", "Publik", "public", ("umum", "terbuka")),
        ("FEDERATION", "Jejaring", "federation", ("anggota",)),
        ("NAMED_FORUMS", "Forum tertentu", "named forums", ()),
    ],
    "CooperationCategory": [
        ("OBLIGATORY", "Wajib", "obligatory", ()),
        ("VOLUNTARY", "Sukarela", "voluntary", ()),
    ],
    "RegulationStatus": [
        ("IN_FORCE", "Berlaku", "in force", ()),
        ("NOT_IN_FORCE", "Tidak berlaku", "not in force", ()),
        ("REVOKED", "Dicabut", "revoked", ()),
        ("AMENDED", "Diubah", "amended", ()),
    ],
    "RelationType": [
        ("AMENDS", "Mengubah", "amends", ()),
        ("AMENDED_BY", "Diubah oleh", "amended by", ()),
        ("REVOKES", "Mencabut", "revokes", ()),
        ("REVOKED_BY", "Dicabut oleh", "revoked by", ()),
        ("IMPLEMENTS", "Melaksanakan", "implements", ()),
        ("REFERS_TO", "Mengacu pada", "refers to", ("mengacu",)),
        ("EXTENDS", "Memperpanjang", "extends", ()),
    ],
    "AgendaStatus": [
        ("TENTATIVE", "Belum pasti", "tentative", ()),
        ("CONFIRMED", "Pasti", "confirmed", ()),
        ("CANCELLED", "Batal", "cancelled", ()),
    ],
    "ForumLevel": [
        ("DISTRICT", "Kabupaten/kota", "district", ("kabupaten_kota",)),
        ("PROVINCE", "Provinsi", "province", ()),
        ("NATIONAL", "Nasional", "national", ()),
    ],
    "ForumBasis": [
        ("EXECUTIVE", "Eksekutif", "executive", ()),
        ("LEGISLATIVE", "Legislatif", "legislative", ()),
        ("EXECUTIVE_AND_LEGISLATIVE", "Eksekutif dan legislatif", "executive and legislative", ()),
        ("EXECUTIVE_AND_PRIVATE", "Eksekutif dan swasta", "executive and private", ()),
    ],
    "ForumFormat": [
        ("COORDINATION", "Koordinasi", "coordination", ()),
        ("COORDINATION_MONITORING_EVALUATION", "Koordinasi, monitoring dan evaluasi", "coordination, monitoring and evaluation", ()),
        ("JOINT_ENTERPRISE_EMERGING", "Menuju badan usaha bersama", "emerging joint enterprise", ()),
        ("JOINT_ENTERPRISE", "Badan usaha bersama", "joint enterprise", ()),
    ],
    "NetworkType": [
        ("INFORMATION", "Berbagi informasi", "information", ()),
        ("DEVELOPMENTAL", "Pengembangan", "developmental", ()),
        ("OUTREACH", "Strategi bersama", "outreach", ()),
        ("ACTION", "Aksi bersama", "action", ()),
    ],
    "ForumManagement": [
        ("PROFESSIONAL", "Tenaga profesional", "professional", ()),
        ("GOVERNMENT", "Pejabat pemerintah", "government", ()),
    ],
    "MembershipState": [
        ("ACTIVE", "anggota", "member", ()),
        ("SUSPENDED", "dibekukan", "suspended", ()),
        ("LEFT", "keluar", "left", ()),
        ("APPLIED", "melamar", "has applied", ()),
    ],
    "MemberCategory": [
        ("FULL", "penuh", "full", ()),
        ("ASSOCIATE", "luar biasa", "associate", ()),
    ],
    "Mode": [
        ("NETWORKING", "jejaring", "networking", ()),
        ("SUBSIDIARITY", "subsidiaritas", "subsidiarity", ()),
    ],
    "RecordState": [
        ("QUEUED", "Menunggu", "queued", ("antre",)),
        ("PUBLISHED", "Terbit", "published", ()),
        ("RETRACTED", "Ditarik", "retracted", ()),
        ("CONTENT_MISSING", "Isi belum tiba", "content missing", ()),
        ("SUBMITTED", "Menunggu tinjauan", "waiting for review", ()),
        ("REJECTED", "Tidak diloloskan", "turned down", ()),
    ],
}


#: Official abbreviations: of instruments as JDIHN's ``singkatanJenis`` has them, of forms of cooperation as the law has them.
_CODES: dict[str, dict[str, str]] = {
    "Instrument": {
        "JOINT_AGREEMENT": "KB",
        "COOPERATION_AGREEMENT": "PKS",
        "MEMORANDUM_OF_AGREEMENT": "NK",
        "WORK_PLAN": "RK",
        "JOINT_DECREE": "SKB",
        "JOINT_REGULATION": "PBKDH",
        "REGIONAL_REGULATION": "PERDA",
        "HEAD_OF_REGION_REGULATION": "PERKADA",
        "LAW": "UU",
        "LAW_IN_LIEU": "PERPPU",
        "GOVERNMENT_REGULATION": "PP",
        "PRESIDENTIAL_REGULATION": "PERPRES",
        "MINISTERIAL_REGULATION": "PERMEN",
        "MINISTERIAL_DECREE": "KEPMEN",
        "CIRCULAR": "SE",
        "LETTER_OF_INTENT": "LoI",
        "FOREIGN_MEMORANDUM": "MSP",
        "STATUTES": "AD/ART",
    },
    "CooperationForm": {
        "OTHER_REGION": "KSDD",
        "THIRD_PARTY": "KSDPK",
        "FOREIGN_REGION": "KSDPL",
        "FOREIGN_BODY": "KSDLL",
    },
}


@lru_cache
def terms(enum: str) -> tuple[Term, ...]:
    """All values of an enum of ``kad.v1``, in the order of their numbers, without the unspecified one."""
    codes = _CODES.get(enum, {})
    return tuple(
        Term(name, number, indonesian, english, aliases, aliases[0] if enum == "Sector" else codes.get(name, ""))
        for number, (name, indonesian, english, aliases) in enumerate(_WORDS[enum], 1)
    )


def label(enum: str, number: int, language: str = "id") -> str:
    """The label of a value; a dash for 0 and for values that this version does not know."""
    known = terms(enum)
    return known[number - 1].label(language) if 1 <= number <= len(known) else "-"


def _spellings(term: Term) -> set[str]:
    return {_fold(word) for word in (term.name, term.indonesian, term.english, *term.aliases)}


def _fold(word: str) -> str:
    return " ".join(word.casefold().replace("_", " ").replace("-", " ").split())


@lru_cache
def _by_word(enum: str) -> dict[str, Term]:
    return {spelling: term for term in terms(enum) for spelling in _spellings(term)}


def find(enum: str, word: str) -> Term:
    """The value that somebody means by a word: its name, label, code or abbreviation, in either language and any case.

    Raises:
        InvalidInputError: ``INVALID_FIELD``, with what comes closest.
    """
    term = _by_word(enum).get(_fold(word)) or _by_word(enum).get(_fold(word).removeprefix(f"{_fold(_prefix(enum))} "))
    if term is not None:
        return term
    from difflib import get_close_matches  # noqa: PLC0415 - only on the way to an error

    close = get_close_matches(_fold(word[:60]), _by_word(enum), 3, 0.5)
    hint = f"; did you mean {', '.join(close)}?" if close else f"; known: {', '.join(term.indonesian for term in terms(enum)[:8])}, ..."
    raise InvalidInputError(Reason.INVALID_FIELD, f"{word[:60]!r} is not a {_fold(_prefix(enum))}{hint}", value=word[:60])


def _prefix(enum: str) -> str:
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(enum))
