"""French words, noun phrases and verb forms; words that run together are written apart until `sandhi`."""

from __future__ import annotations

import re

from train.phrasebook.referent import Clock, NounPhrase, Person, Portion
from train.phrasebook.tables import join, numbers, table, words

# gender, singular, plural
NOUNS = table("""
bread: m pain -; cheese: m fromage -; fish: m poisson -; meat: f viande -; rice: m riz -; soup: f soupe -
chicken: m poulet -; salad: f salade -; cake: m gâteau -; vegetables: m - légumes; coffee: m café -; tea: m thé -
water: f eau -; milk: m lait -; juice: m jus -; beer: f bière -; wine: m vin -; apple: f pomme pommes
egg: m œuf œufs; banana: f banane bananes; sandwich: m sandwich sandwichs; book: m livre livres
newspaper: m journal journaux; letter: f lettre lettres; ticket: m billet billets; map: m plan plans
key: f clé clés; phone: m téléphone téléphones; bag: m sac sacs; suitcase: f valise valises
umbrella: m parapluie parapluies; camera: m appareil_photo appareils_photo; watch: f montre montres
photo: f photo photos; flower: f fleur fleurs; gift: m cadeau cadeaux; menu: m menu -; bill: f addition -
fork: f fourchette fourchettes; spoon: f cuillère cuillères; knife: m couteau couteaux
towel: f serviette serviettes; blanket: f couverture couvertures; shirt: f chemise chemises; jacket: f veste vestes
coat: m manteau manteaux; dress: f robe robes; hat: m chapeau chapeaux; sweater: m pull pulls; shoes: f - chaussures
dog: m chien chiens; cat: m chat chats; child: m enfant enfants; son: m fils fils; daughter: f fille filles
friend: m ami amis; bicycle: m vélo vélos; car: f voiture voitures; cup: f tasse tasses; glass: m verre verres
bottle: f bouteille bouteilles; piece: m morceau morceaux; time: m temps -; money: m argent -; help: f aide -
train: m train -; bus: m bus -; plane: m avion -; taxi: m taxi -; station: f gare -; airport: m aéroport -
hotel: m hôtel -; restaurant: m restaurant -; museum: m musée -; bank: f banque -; pharmacy: f pharmacie -
hospital: m hôpital -; market: m marché -; supermarket: m supermarché -; park: m parc -; school: f école -
post_office: f poste -; cinema: m cinéma -; theater: m théâtre -; church: f église -; library: f bibliothèque -
beach: f plage -
""")
# masculine, feminine, plural masculine, plural feminine, masculine before a vowel of those that come before the noun
ADJECTIVES = table("""
red: rouge rouge rouges rouges; blue: bleu bleue bleus bleues; white: blanc blanche blancs blanches
black: noir noire noirs noires; green: vert verte verts vertes; cheap: bon_marché bon_marché bon_marché bon_marché
expensive: cher chère chers chères; warm: chaud chaude chauds chaudes; hot: chaud chaude chauds chaudes
cold: froid froide froids froides; fresh: frais fraîche frais fraîches; fast: rapide rapide rapides rapides
new: nouveau nouvelle nouveaux nouvelles nouvel; old: vieux vieille vieux vieilles vieil
big: grand grande grands grandes grand; small: petit petite petits petites petit
beautiful: beau belle beaux belles bel; good: bon bonne bons bonnes bon; tired: fatigué fatiguée fatigués fatiguées
sick: malade malade malades malades; busy: occupé occupée occupés occupées
happy: heureux heureuse heureux heureuses; better: meilleur meilleure meilleurs meilleures
""")
# present: je, tu, il, nous, vous, ils; stem of the future; infinitive, participle
VERBS = table("""
eat: mange manges mange mangeons mangez mangent manger manger mangé
drink: bois bois boit buvons buvez boivent boir boire bu
buy: achète achètes achète achetons achetez achètent achèter acheter acheté
read: lis lis lit lisons lisez lisent lir lire lu
write: écris écris écrit écrivons écrivez écrivent écrir écrire écrit
lose: perds perds perd perdons perdez perdent perdr perdre perdu
find: trouve trouves trouve trouvons trouvez trouvent trouver trouver trouvé
look_for: cherche cherches cherche cherchons cherchez cherchent chercher chercher cherché
meet: rencontre rencontres rencontre rencontrons rencontrez rencontrent rencontrer rencontrer rencontré
wait_for: attends attends attend attendons attendez attendent attendr attendre attendu
call: appelle appelles appelle appelons appelez appellent appeller appeler appelé
go: vais vas va allons allez vont ir aller allé
work: travaille travailles travaille travaillons travaillez travaillent travailler travailler travaillé
cook: cuisine cuisines cuisine cuisinons cuisinez cuisinent cuisiner cuisiner cuisiné
swim: nage nages nage nageons nagez nagent nager nager nagé
dance: danse danses danse dansons dansez dansent danser danser dansé
sing: chante chantes chante chantons chantez chantent chanter chanter chanté
stay: reste restes reste restons restez restent rester rester resté
like: aime aimes aime aimons aimez aiment; speak: parle parles parle parlons parlez parlent
give: donne donnes donne donnons donnez donnent donner donner donné
show: montre montres montre montrons montrez montrent montrer montrer montré
send: envoie envoies envoie envoyons envoyez envoient enverr envoyer envoyé
want: veux veux veut voulons voulez veulent; must: dois dois doit devons devez doivent
can: sais sais sait savons savez savent; be: suis es est sommes êtes sont; have: ai as a avons avez ont
was: étais étais était étions étiez étaient
rain: - - pleut - - - pleuvr pleuvoir plu; snow: - - neige - - - neiger neiger neigé
make: - - fait - - - fer faire fait
""")
FUTURE = ("ai", "as", "a", "ons", "ez", "ont")
WITH_BE = ("go", "stay")
"""Verbs whose past is made with être, so that the participle agrees with the subject."""
SAME = words("ride: go; fly: go; stay_home: stay")
PEOPLE = words("""
I: je; we: nous; you: tu; You: vous; he: il; she: elle; they: ils; Anna: Anna; Martin: Martin; children: les_enfants
teacher: le_professeur; doctor: le_médecin; mother: ma_mère; father: mon_père; sister: ma_sœur; brother: mon_frère
son: mon_fils; daughter: ma_fille; friend: mon_ami; parents: mes_parents; it: il
""")
CITIES = words("Berlin: Berlin; Paris: Paris; London: Londres; Tokyo: Tokyo; Moscow: Moscou; Beijing: Pékin")
VEHICLES = words("train: en_train; bus: en_bus; plane: en_avion; taxi: en_taxi; car: en_voiture")
TIMES = words("""
every_day: tous_les_jours; now: en_ce_moment; today: aujourd'hui; yesterday: hier; last_week: la_semaine_dernière
last_night: hier_soir; tomorrow: demain; next_week: la_semaine_prochaine; tonight: ce_soir; on_Monday: lundi
on_Saturday: samedi
""")
RELATIONS = words("next_to: à_côté_de; opposite: en_face_de; behind: derrière; in_front_of: devant; near: près_de")
SURFACES = words("""
on_table: sur_la_table; on_bed: sur_le_lit; in_bag: dans_le_sac; in_suitcase: dans_la_valise
in_kitchen: dans_la_cuisine; in_car: dans_la_voiture
""")
LANGUAGES = words("""
English: anglais; German: allemand; French: français; Russian: russe; Japanese: japonais; Chinese: chinois
""")
PROFESSIONS = table("""
doctor: médecin médecin; teacher: professeur professeure; cook: cuisinier cuisinière; student: étudiant étudiante
engineer: ingénieur ingénieure; actor: acteur actrice
""")
UNITS = table("day: un_jour jours; night: une_nuit nuits; week: une_semaine semaines; month: un_mois mois")
NUMBERS = numbers("""
un deux trois quatre cinq six sept huit neuf dix onze douze vingt vingt_et_un trente trente-deux quarante quarante-cinq
cinquante cent
""")
VOWEL = "aeiouyéêèœhAE"


def sandhi(text: str) -> str:
    """Run words together: le argent, de le pain, à les enfants become l'argent, du pain, aux enfants."""
    text = re.sub(rf"\b(je|me|de|ne|que|le|la) (?=[{VOWEL}])", lambda match: f"{match[1][:-1]}'", text)
    for apart, together in (("de le ", "du "), ("de les ", "des "), ("à le ", "au "), ("à les ", "aux ")):
        text = re.sub(rf"\b{apart}", together, text)
    return text


def agree(adjective: str, gender: str, plural: bool) -> str:
    return ADJECTIVES[adjective][2 * plural + (gender == "f")]


def agreeing(adjective: str, thing: NounPhrase) -> str:
    return agree(adjective, NOUNS[thing.noun][0], thing.plural)


def described(thing: NounPhrase) -> str:
    """Noun and adjective, each in its place."""
    gender, singular, plural = NOUNS[thing.noun]
    noun = plural if thing.plural else singular
    if not thing.adjective:
        return noun
    adjective = agreeing(thing.adjective, thing)
    if len(ADJECTIVES[thing.adjective]) == 4:
        return f"{noun} {adjective}"
    liaison = gender == "m" and not thing.plural and noun[0] in VOWEL
    return f"{ADJECTIVES[thing.adjective][4] if liaison else adjective} {noun}"


def generic(thing: NounPhrase) -> str:
    """With the definite article, which also speaks of things in general."""
    article = "les" if thing.plural else {"m": "le", "f": "la"}[NOUNS[thing.noun][0]]
    return f"{article} {described(thing)}"


def indefinite(thing: NounPhrase) -> str:
    return f"{'une' if NOUNS[thing.noun][0] == 'f' else 'un'} {described(thing)}"


def noun_phrase(thing: NounPhrase, negative: bool = False) -> str:
    """With its article: definite, indefinite or partitive; `de` where it is denied."""
    if thing.determiner == "the" or thing.noun == "time":  # avoir le temps
        return generic(thing)
    if negative:
        return f"de {described(thing)}"
    if thing.count > 1:
        return f"{NUMBERS[thing.count]} {described(thing)}"
    if thing.determiner == "a":
        return indefinite(thing)
    before = thing.plural and thing.adjective and len(ADJECTIVES[thing.adjective]) > 4
    return f"de {described(thing)}" if before else f"de {generic(thing)}"


def portion(served: Portion) -> str:
    unit = noun_phrase(NounPhrase(noun=served.measure or served.noun, count=served.count))
    return join(unit, f"de {NOUNS[served.noun][1]}" if served.measure else "")


def thing_or_portion(thing: NounPhrase | Portion) -> str:
    return portion(thing) if isinstance(thing, Portion) else noun_phrase(thing)


def place(key: str) -> str:
    return generic(NounPhrase(noun=key, determiner="the"))


def clock(time: Clock) -> str:
    hour = "une heure" if time.hour == 1 else f"{NUMBERS[time.hour]} heures"
    return f"à {hour} et demie" if time.half else f"à {hour}"


def slot(who: Person) -> int:
    """The column of the person: je, tu, il, nous, vous, ils."""
    return 4 if who.key == "You" else who.person - 1 + 3 * who.plural


def verb_group(who: Person, verb: str, tense: str, pas: str = "", adverb: str = "") -> str:
    """The verb with `ne` and `pas` around its finite form, and the adverb where French puts it."""
    verb = SAME.get(verb, verb)
    forms, participle = VERBS[verb], ""
    finite = forms[slot(who)]
    if tense == "future":
        finite = forms[6] + FUTURE[slot(who)]
    elif tense == "past":
        finite, participle = VERBS["be" if verb in WITH_BE else "have"][slot(who)], forms[8]
        if verb in WITH_BE:
            participle += ("e" if who.gender == "f" else "") + ("s" if who.plural else "")
    return join("ne" if pas else "", finite, pas, adverb, participle)


def infinitive(verb: str) -> str:
    return VERBS[SAME.get(verb, verb)][7]
