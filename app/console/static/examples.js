// Requests to begin with: several languages and scripts, most tasks, and one that nothing fits.

export const EXAMPLES = [
  {
    name: "Quarterly figures", code: "de",
    text: "Der Umsatz stieg im dritten Quartal um zwölf Prozent.",
    description: "Is this good or bad news for investors?",
  },
  {
    name: "Personal data", code: "en",
    text: "Please call Maria Keller on +49 170 5550134 or write to maria.keller@example.org.",
    description: "Find all personal data in this text.",
  },
  {
    name: "منشور", code: "ar",
    text: "كان الحفل رائعًا الليلة الماضية، أشكر كل من جاء!",
    description: "هل هذا المنشور إيجابي أم سلبي؟",
  },
  {
    name: "Lost card", code: "en",
    text: "I lost my card on the train yesterday. How do I get a new one?",
    description: "Which banking request is this?",
  },
  {
    name: "南极", code: "zh",
    text: "科学家在南极冰层下发现了一个巨大的湖泊。",
    description: "What topic is this text about?",
  },
  {
    name: "क्रिकेट", code: "hi",
    text: "भारत ने कल रात खेला गया मैच पाँच विकेट से जीत लिया।",
    description: "यह पाठ किस विषय के बारे में है?",
  },
  {
    name: "Avis client", code: "fr",
    text: "La montre s'est arrêtée au bout de deux jours et le vendeur ne répond pas.",
    description: "How many stars did this customer give?",
  },
  {
    name: "保温ボトル", code: "ja",
    text: "真空断熱ステンレスボトル 500ml 保温・保冷",
    description: "Does the product match the search query?",
    query: "保温できる水筒",
  },
  {
    name: "خبر", code: "fa",
    text: "تیم ملی فوتبال دیشب با دو گل بازی را برد.",
    description: "این متن دربارهٔ چه موضوعی است؟",
  },
  {
    name: "Nothing fits", code: "tr",
    text: "İki yumurtayı çırpın, üzerine bir bardak süt ekleyin.",
    description: "Translate this recipe into French.",
  },
];
