"""The people sentences are about, as subjects, objects and recipients."""

from __future__ import annotations

from train.phrasebook.referent import Person

# Who speaks is not told apart in English, but in French and Russian.
I_MAN = Person(key="I", person=1)
I_WOMAN = Person(key="I", person=1, gender="f")
WE = Person(key="we", person=1, plural=True)
YOU = Person(key="you", person=2)
YOU_POLITE = Person(key="You", person=2)
"""Like `YOU`, to a stranger: Sie, vous, вы."""
HE = Person(key="he")
SHE = Person(key="she", gender="f")
THEY = Person(key="they", plural=True)
ANNA = Person(key="Anna", gender="f")
MARTIN = Person(key="Martin")
CHILDREN = Person(key="children", plural=True)
TEACHER = Person(key="teacher")
DOCTOR = Person(key="doctor")
FAMILY = (
    Person(key="mother", gender="f"),
    Person(key="father"),
    Person(key="sister", gender="f"),
    Person(key="brother"),
    Person(key="daughter", gender="f"),
    Person(key="son"),
    Person(key="friend"),
    Person(key="parents", plural=True),
)
OTHERS = (ANNA, MARTIN, CHILDREN, *FAMILY)
SUBJECTS = (I_MAN, I_WOMAN, WE, HE, SHE, THEY, *OTHERS)
"""Those that statements are about."""
ASKED = (YOU, YOU_POLITE, HE, SHE, THEY, *OTHERS)
"""Those that questions are about."""
MET = (*OTHERS, TEACHER, DOCTOR)
"""Those whom one can meet, call or wait for."""
