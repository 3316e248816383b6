"""What the demo asks: texts and questions in many languages, over most of the shipped tasks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Case:
    """One request."""

    text: str
    description: str | None
    fields: dict[str, str] = field(default_factory=dict)


CASES = (
    Case("Der Umsatz stieg im dritten Quartal um zwölf Prozent.", "Is this good or bad news for investors?"),
    Case("I lost my card on the train yesterday. How do I get a new one?", "Which banking request is this?"),
    Case(
        "¡Qué festival tan maravilloso! Quiero volver el año que viene.", "¿Este tuit es positivo o negativo?"
    ),
    Case(
        "La montre s'est arrêtée au bout de deux jours et le vendeur ne répond pas.",
        "How many stars did this customer give?",
    ),
    Case("科学家在南极冰层下发现了一个巨大的湖泊。", "What topic is this text about?"),
    Case("भारत ने कल रात खेला गया मैच पाँच विकेट से जीत लिया।", "यह पाठ किस विषय के बारे में है?"),
    Case("Os meus vizinhos são simpáticos e ajudam toda a gente.", "Is this hate speech?"),
    Case("Che tristezza, oggi è stata una giornata terribile.", "Questo post è positivo o negativo?"),
    Case(
        "Please call Maria Keller on +49 170 5550134 or write to maria.keller@example.org.",
        "Find all personal data in this text.",
    ),
    Case(
        "Центральный банк сохранил ключевую ставку без изменений.",
        "Which section does this financial news belong to?",
    ),
    Case(
        "真空断熱ステンレスボトル 500ml 保温・保冷",
        "Does the product match the search query?",
        {"query": "保温できる水筒"},
    ),
    Case("İki yumurtayı çırpın, üzerine bir bardak süt ekleyin.", "Translate this recipe into French."),
)
"""The last one asks for what no expert does: MoLE abstains instead of guessing."""
