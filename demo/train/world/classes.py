"""What can stand in a scene: a name, its plural, and the emoji that shows it.

The classes were chosen to be told apart at 40 pixels. No two share shape and colour, and no name is part of another.
"""

from typing import NamedTuple


class Class(NamedTuple):
    name: str
    plural: str
    emoji: str

    @property
    def article(self) -> str:
        return "an" if self.name[0] in "aeiou" else "a"


CLASSES = [
    Class("apple", "apples", "🍎"),
    Class("banana", "bananas", "🍌"),
    Class("lemon", "lemons", "🍋"),
    Class("strawberry", "strawberries", "🍓"),
    Class("eggplant", "eggplants", "🍆"),
    Class("carrot", "carrots", "🥕"),
    Class("mushroom", "mushrooms", "🍄"),
    Class("pizza", "pizzas", "🍕"),
    Class("doughnut", "doughnuts", "🍩"),
    Class("burger", "burgers", "🍔"),
    Class("dog", "dogs", "🐶"),
    Class("cat", "cats", "🐱"),
    Class("rabbit", "rabbits", "🐰"),
    Class("panda", "pandas", "🐼"),
    Class("pig", "pigs", "🐷"),
    Class("frog", "frogs", "🐸"),
    Class("lion", "lions", "🦁"),
    Class("penguin", "penguins", "🐧"),
    Class("fish", "fish", "🐠"),
    Class("butterfly", "butterflies", "🦋"),
    Class("ladybug", "ladybugs", "🐞"),
    Class("car", "cars", "🚗"),
    Class("bus", "buses", "🚌"),
    Class("rocket", "rockets", "🚀"),
    Class("sailboat", "sailboats", "⛵"),
    Class("house", "houses", "🏠"),
    Class("tree", "trees", "🌳"),
    Class("cactus", "cacti", "🌵"),
    Class("sunflower", "sunflowers", "🌻"),
    Class("football", "footballs", "⚽"),
    Class("basketball", "basketballs", "🏀"),
    Class("star", "stars", "⭐"),
    Class("heart", "hearts", "❤"),
    Class("umbrella", "umbrellas", "☂"),
    Class("key", "keys", "🔑"),
    Class("clock", "clocks", "⏰"),
    Class("guitar", "guitars", "🎸"),
    Class("balloon", "balloons", "🎈"),
    Class("crown", "crowns", "👑"),
    Class("cup", "cups", "☕"),
]

INDEX = {c.name: i for i, c in enumerate(CLASSES)}
