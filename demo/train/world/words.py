"""What is written in scenes: words, numbers and, to train reading and not guessing, random letters."""

import numpy as np

WORDS = """
ACE ACT AIR ANT ARM ART ASH BAG BAR BAY BED BEE BIG BOX BOY BUY CAFE CAKE CAMP CARD CASH CAT CITY CLUB COAT COFFEE
COLD COOK CORN COW CUP DANCE DAY DEAL DESK DOG DOOR DOWN DREAM DRINK DRY DUCK EAST EASY EAT EGG END EXIT EYE FACE FAN
FARM FAST FILM FIRE FISH FIVE FLAT FOOD FOUR FOX FREE FRESH FROG FRUIT FULL FUN GAME GAS GATE GIFT GOLD GOOD GRAPE
GREEN HAPPY HAT HEAT HELLO HELP HERO HIGH HOME HOT HOTEL HOUR ICE INN IRON JAM JAZZ JOB JOY JUICE JUMP JUNE KEY KID
KING KITE LAKE LAMP LAND LEFT LEMON LIFE LIGHT LION LOVE LUCK LUNCH MAGIC MAP MARCH MARKET MEAL MENU MILK MINT MOON
MOVE MUSIC NEW NEXT NICE NIGHT NINE NORTH NOW OCEAN OFF OIL OLD ONE OPEN ORANGE OVEN OWL PAINT PAPER PARK PEACE PEN
PHONE PIANO PIE PLAY PLUM POOL POST PRICE PULL PUSH QUEEN QUICK QUIET RADIO RAIN RED RENT REST RICE RIGHT RING RIVER
ROAD ROCK ROOM ROSE RUN SAFE SALE SALT SAND SEA SEVEN SHIP SHOE SHOP SHOW SIX SKY SLOW SMILE SNOW SOAP SOFT SOUP SOUTH
SPACE SPORT STAR STAY STEP STOP SUGAR SUMMER SUN SWEET SWIM TALK TAXI TEA TEN TIME TODAY TOP TOY TRAIN TREE TRIP TRUCK
TURN TWO VAN VIEW WAIT WALK WARM WASH WATER WAY WEB WELCOME WEST WILD WIN WIND WINTER WOOD WORD WORK WORLD YES YOGA
YOUNG ZEBRA ZERO ZONE ZOO
""".split()

# Never trained on: reading them shows that letters are read.
UNSEEN = set(WORDS[4::8])
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
CHARACTERS = LETTERS + DIGITS


def training(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.3:
        return number(rng)
    if kind < 0.55:
        seen = [word for word in WORDS if word not in UNSEEN]
        return seen[rng.integers(len(seen))]
    while True:
        text = "".join(LETTERS[i] for i in rng.integers(26, size=rng.integers(2, 7)))
        # In many typefaces O and I alone could as well be 0 and 1.
        if not set(text) <= set("OI") and text not in UNSEEN:
            return text


def held_out(rng: np.random.Generator) -> str:
    return number(rng) if rng.random() < 0.35 else WORDS[rng.integers(len(WORDS))]


def number(rng: np.random.Generator) -> str:
    digits = rng.integers(1, 5)
    return str(rng.integers(0 if digits == 1 else 10 ** (digits - 1), 10**digits))
