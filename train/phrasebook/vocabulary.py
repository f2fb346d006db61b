"""The words of the phrasebook by key, in the classes that decide which of them go together."""

from __future__ import annotations

FOOD = ("bread", "cheese", "fish", "meat", "rice", "soup", "chicken", "salad", "cake", "vegetables")
DRINK = ("coffee", "tea", "water", "milk", "juice", "beer", "wine")
SNACK = ("apple", "egg", "banana", "sandwich")
READING = ("book", "newspaper", "letter")
CARRIED = ("ticket", "map", "key", "phone", "bag", "suitcase", "umbrella", "camera", "watch", "photo")
GIFT = ("book", "letter", "photo", "flower", "gift", "map", "ticket")
TABLEWARE = ("menu", "bill", "fork", "spoon", "knife", "towel", "blanket")
CLOTHES = ("shirt", "jacket", "coat", "dress", "hat", "sweater", "shoes")
ANIMAL = ("dog", "cat")
RELATIVE = ("child", "son", "daughter", "friend")
VEHICLE_OWNED = ("bicycle", "car")

COUNTABLE = frozenset((*SNACK, *READING, *CARRIED, *GIFT, *TABLEWARE, *CLOTHES, *ANIMAL, *RELATIVE, *VEHICLE_OWNED)) - {
    "shoes"
}
PLURAL_ONLY = frozenset({"vegetables", "shoes"})

COLOR = ("red", "blue", "white", "black", "green")

SHOP = ("bank", "pharmacy", "market", "supermarket", "post_office", "museum", "library")
SIGHT = ("station", "airport", "hotel", "restaurant", "hospital", "park", "school", "cinema", "theater", "church")
PLACE = (*SHOP, *SIGHT, "beach")
CITY = ("Berlin", "Paris", "London", "Tokyo", "Moscow", "Beijing")
VEHICLE = ("train", "bus", "plane", "taxi", "car")
SURFACE = ("on_table", "on_bed", "in_bag", "in_suitcase", "in_kitchen", "in_car")

ACTIVITY = ("work", "cook", "swim", "dance", "sing")
LANGUAGE = ("English", "German", "French", "Russian", "Japanese", "Chinese")
PROFESSION = ("doctor", "teacher", "cook", "student", "engineer", "actor")
STATE = ("tired", "sick", "hungry", "thirsty", "busy", "happy")
WEATHER = ("rain", "snow", "cold", "warm", "hot", "windy")
RELATION = ("next_to", "opposite", "behind", "in_front_of", "near")

PAST = ("yesterday", "last_week", "last_night")
FUTURE = ("tomorrow", "next_week", "tonight", "on_Monday", "on_Saturday")
HABIT = ("every_day", "often")
EUROS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 20, 30, 40, 50, 100)
YEARS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20, 21, 30, 32, 40, 45, 50)
