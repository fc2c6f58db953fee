"""The sentence for each problem code of a request, in English and Swedish.

Owns the list of codes. Sentences name fields, never values: they reach logs and the page. Pure.
"""

from __future__ import annotations

import re

LANGUAGES = ("en", "sv")
_QUALITY = re.compile(r"q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\Z", re.IGNORECASE)

# Where a contact's type is changed; Engage ignores it in an update.
UPGRADE_CALL = "POST /api/v3/contacts/{id}/updateContactType?contactTypeId=…"

# code → (English, Swedish). {field} is the attribute as the POS wrote it; what else stands in
# braces comes from the details of sentence(). Codes are stable: a POS may act on them.
_SENTENCES: dict[str, tuple[str, str]] = {
    # --- what is missing
    "KeyMissing": (
        "{field} is missing: without it nobody can tell who the customer is. Ask for it.",
        "{field} saknas: utan det går det inte att veta vem kunden är. Fråga efter det.",
    ),
    "Required": (
        "{field} is missing and has to be filled in.",
        "{field} saknas och måste fyllas i.",
    ),
    "EmptyValue": (
        "{field} is empty. Leave it out to keep what is stored, or send ?clear={field} to remove "
        "it.",
        "{field} är tomt. Utelämna det för att behålla det som är sparat, eller skicka "
        "?clear={field} för att ta bort det.",
    ),
    # --- what may not be emptied or changed
    "ClearedAndGiven": (
        "{field} has a value and stands in ?clear= too. Choose one of them.",
        "{field} har ett värde men står också i ?clear=. Välj det ena.",
    ),
    "KeyNotClearable": (
        "{field} cannot be removed: the customer is known by it. Send a new value instead.",
        "{field} kan inte tas bort: kunden är känd genom det. Skicka ett nytt värde i stället.",
    ),
    "NotClearable": (
        "{field} cannot be removed with ?clear=. Send true or false instead.",
        "{field} kan inte tas bort med ?clear=. Skicka true eller false i stället.",
    ),
    "ContactTypeNotUpdatable": (
        f"{{field}} cannot be changed by an update. Call {UPGRADE_CALL} instead.".replace(
            "{id}", "{{id}}"
        ),
        f"{{field}} kan inte ändras med en uppdatering. Anropa {UPGRADE_CALL} i stället.".replace(
            "{id}", "{{id}}"
        ),
    ),
    "ContactTypeDiffers": (
        "{field} says another type than contactTypeId in the address. Leave {field} out.",
        "{field} anger en annan typ än contactTypeId i adressen. Utelämna {field}.",
    ),
    "ReadOnly": (
        "{field} is worked out by Engage and cannot be set. Leave it out.",
        "{field} räknas ut av Engage och kan inte sättas. Utelämna det.",
    ),
    # --- names
    "BadContactType": (
        "{field} is not a name of a contact type. Write it as Engage spells its handle, for "
        "example Member.",
        "{field} är inte ett namn på en kontakttyp. Skriv det som Engage stavar det, till exempel "
        "Member.",
    ),
    "UnknownAttribute": (
        "{field} is not an attribute of a contact.",
        "{field} är inte ett attribut hos en kontakt.",
    ),
    "NotAnAttribute": (
        "{field} is not an attribute of a contact. Send the attributes themselves, at the top of "
        "the body, and the contact's id in the address.",
        "{field} är inte ett attribut hos en kontakt. Skicka själva attributen, överst i "
        "meddelandet, och kontaktens id i adressen.",
    ),
    "NotAPreference": (
        "{field} cannot be the name of a preference: the file for Engage's import says something "
        "else with it. Send the preferences themselves, each true or false.",
        "{field} kan inte vara namnet på en preferens: filen för Engages import säger något annat "
        "med det. Skicka själva preferenserna, var och en true eller false.",
    ),
    "QueryParameter": (
        "{field} is not an attribute of a contact. Send it in the address of a create: "
        "POST /api/v3/contacts?{field}=…",
        "{field} är inte ett attribut hos en kontakt. Skicka det i adressen när kontakten skapas: "
        "POST /api/v3/contacts?{field}=…",
    ),
    "BadName": (
        "The name at {field} cannot be used: letters a to z, digits, dot, dash and underscore, "
        "64 characters at most, starting with a letter.",
        "Namnet på plats {field} kan inte användas: bokstäver a till z, siffror, punkt, bindestreck"
        " och understreck, högst 64 tecken, med en bokstav först.",
    ),
    "DuplicateName": (
        "{field} stands there more than once, in upper and lower case. Send it once.",
        "{field} finns med mer än en gång, med stora och små bokstäver. Skicka det en gång.",
    ),
    # --- values
    "WrongType": (
        "{field} has to be a text, a number, true or false, as fits the attribute.",
        "{field} måste vara en text, ett tal, true eller false, beroende på attributet.",
    ),
    "NotAnObject": (
        "{field} has to be a JSON object, with a name for each value.",
        "{field} måste vara ett JSON-objekt, med ett namn för varje värde.",
    ),
    "NotAList": (
        "{field} has to be a list of objects, each with id and value.",
        "{field} måste vara en lista av objekt, vart och ett med id och value.",
    ),
    "NotBoolean": (
        "{field} has to be true or false.",
        "{field} måste vara true eller false.",
    ),
    "ControlCharacter": (
        "{field} holds a character that cannot be stored. Type it again.",
        "{field} innehåller ett tecken som inte kan sparas. Skriv in det på nytt.",
    ),
    "BadEmail": (
        "{field} is not a valid e-mail address. Check the spelling.",
        "{field} är inte en giltig e-postadress. Kontrollera stavningen.",
    ),
    "BadPhone": (
        "{field} is not a valid phone number. Check the digits, and write a foreign number with "
        "+ and its country code.",
        "{field} är inte ett giltigt telefonnummer. Kontrollera siffrorna, och skriv ett utländskt "
        "nummer med + och landskod.",
    ),
    "BadBirthDay": (
        "{field} is not a date. Write it as YYYY-MM-DD.",
        "{field} är inte ett datum. Skriv det som ÅÅÅÅ-MM-DD.",
    ),
    "BirthDayInFuture": (
        "{field} lies in the future. Check the year.",
        "{field} ligger i framtiden. Kontrollera året.",
    ),
    "BirthDayTooEarly": (
        "{field} lies before 1900. Check the year.",
        "{field} ligger före 1900. Kontrollera året.",
    ),
    "TooYoung": (
        "{field} says that the customer is not {age} yet, as {contact_type} demands. Check the "
        "year; if it is right, the customer cannot be signed up.",
        "{field} säger att kunden inte har fyllt {age} år, vilket krävs för {contact_type}. "
        "Kontrollera året; stämmer det kan kunden inte registreras.",
    ),
    "BadPersonalNumber": (
        "{field} is not a valid personal number. Check the digits.",
        "{field} är inte ett giltigt personnummer. Kontrollera siffrorna.",
    ),
    "BadCountryCode": (
        "{field} is not a country code. Write the two letters of ISO 3166, for example SE.",
        "{field} är inte en landskod. Skriv de två bokstäverna enligt ISO 3166, till exempel SE.",
    ),
    "BadGender": (
        "{field} has to be Male, Female or Other.",
        "{field} måste vara Male, Female eller Other.",
    ),
    "BadDate": (
        "{field} is not a moment with a time zone. Write it as 2026-01-31T10:15:00+01:00.",
        "{field} är inte en tidpunkt med tidszon. Skriv den som 2026-01-31T10:15:00+01:00.",
    ),
    "DuplicateConsent": (
        "{field} stands there twice. Send each consent once.",
        "{field} finns med två gånger. Skicka varje samtycke en gång.",
    ),
}

# An empty value that ?clear= cannot help with: preferences, consents, an upgrade.
_EMPTY_WITHOUT_CLEAR = (
    "{field} is empty. Leave it out to keep what is stored.",
    "{field} är tomt. Utelämna det för att behålla det som är sparat.",
)

_DID_YOU_MEAN = (" Did you mean '{suggestion}'?", " Menade du '{suggestion}'?")

CODES: tuple[str, ...] = tuple(_SENTENCES)


def preferred_language(accept_language: str) -> str:
    """Give the language of LANGUAGES that Accept-Language wants most (RFC 9110, 12.5.4).

    Weights count, a weight of 0 excludes, `*` stands for what is not named, the first of equals
    wins. English where none of them is wanted; a weight that is none is left out of account.
    """
    weights: dict[str, float] = {}
    for part in accept_language.lower().split(","):
        language_range, *parameters = (text.strip() for text in part.split(";"))
        name = language_range.partition("-")[0]
        weight = _weight(parameters)
        if name in (*LANGUAGES, "*") and weight is not None:
            weights[name] = max(weight, weights.get(name, 0.0))
    anything = weights.pop("*", 0.0)
    for name in LANGUAGES:
        weights.setdefault(name, anything)
    # What is named stands there in the header's order, and max() gives the first of equals.
    best = max(weights, key=lambda name: weights[name])
    return best if weights[best] > 0 else "en"


def _weight(parameters: list[str]) -> float | None:
    if not parameters or not parameters[0]:
        return 1.0
    found = _QUALITY.match(parameters[0])
    return float(found[1]) if found else None


def sentence(
    code: str,
    field: str,
    language: str = "en",
    *,
    suggestion: str = "",
    clearable: bool = True,
    **details: object,
) -> str:
    """Say what is wrong with a field and what to do, in one or two sentences.

    `language` is a tag such as `sv` or `sv-SE`; one that is not known gives English. `suggestion`
    is the nearest known name; `clearable=False` leaves the advice about `?clear=` out; `details`
    are what else the sentence names, such as an age. KeyError for a code that is not in CODES.
    """
    column = 1 if language[:2].lower() == "sv" else 0
    template = _SENTENCES[code][column]
    if code == "EmptyValue" and not clearable:
        template = _EMPTY_WITHOUT_CLEAR[column]
    if suggestion:
        template += _DID_YOU_MEAN[column]
    return template.format(field=field, suggestion=suggestion, **details)
