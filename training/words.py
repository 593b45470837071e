"""The words of the captions: many ways to say the same thing, words that say nothing, and words kept free."""

# fmt: off
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "red", "crimson", "scarlet"),
    "orange": ("orange", "orange", "tangerine"),
    "yellow": ("yellow", "yellow", "golden"),
    "green": ("green", "green", "emerald"),
    "cyan": ("cyan", "cyan", "turquoise", "aqua"),
    "blue": ("blue", "blue", "azure"),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink", "pink", "rose"),
}
SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "circle", "ball", "disc", "dot"),
    "square": ("square", "square", "box", "block"),
    "triangle": ("triangle", "triangle", "pyramid"),
    "star": ("star",),
    "cross": ("cross",),
    "ring": ("ring",),
}
BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    "black": ("black",),
    "white": ("white",),
    "gray": ("gray", "grey"),
    "navy": ("navy", "navy", "navy blue", "dark blue", "blue"),
    "brown": ("brown",),
    "teal": ("teal", "teal", "dark cyan"),
    "beige": ("beige", "beige", "cream", "tan"),
    "maroon": ("maroon", "maroon", "burgundy", "dark red", "red"),
    "olive": ("olive", "olive", "olive green", "dark green", "green"),
    "lavender": ("lavender", "lavender", "lilac", "light purple"),
}
MOTION_PHRASES: dict[str, tuple[str, ...]] = {
    "circling": ("circling", "going around", "orbiting", "moving in a circle", "going round in circles",
        "looping around"),
    "growing": ("growing", "getting bigger", "getting larger", "expanding", "that grows", "growing larger"),
    "shrinking": ("shrinking", "getting smaller", "contracting", "that shrinks", "shrinking down"),
    "spinning": ("spinning", "rotating", "turning around", "that spins", "twirling", "spinning around"),
    "still": ("standing still", "staying still", "that does not move", "not moving", "motionless", "at rest",
        "still"),
}
STRAIGHT_VERBS: tuple[str, ...] = (
    "moving", "moving", "moves", "sliding", "drifting", "going", "travelling", "heading", "flying",
        "that moves",
)
PLACES: dict[str, tuple[str, ...]] = {
    "left": ("left", "left", "to the left", "leftward", "leftwards", "from right to left"),
    "right": ("right", "right", "to the right", "rightward", "rightwards", "from left to right"),
    "up": ("up", "up", "upward", "upwards", "to the top"),
    "down": ("down", "down", "downward", "downwards", "to the bottom"),
    "up-left": ("up and left", "up and to the left", "diagonally up and to the left", "to the upper left",
        "up left"),
    "up-right": ("up and right", "up and to the right", "diagonally up and to the right", "to the upper right",
        "up right"),
    "down-left": ("down and left", "down and to the left", "diagonally down and to the left",
        "to the lower left", "down left"),
    "down-right": ("down and right", "down and to the right", "diagonally down and to the right",
        "to the lower right", "down right"),
}
ONE_WORD_MOVES: dict[str, tuple[str, ...]] = {
    "up": ("rising", "climbing", "floating up"),
    "down": ("falling", "sinking", "dropping"),
}
SPEED_WORDS: dict[str, tuple[str, ...]] = {
    "slow": ("slowly", "slowly", "gently", "at a slow pace"),
    "fast": ("quickly", "fast", "rapidly", "at high speed"),
}
OPENINGS: tuple[str, ...] = (
    "a video of", "an animation of", "a clip of", "video of", "footage of", "a short clip showing", "we see",
    "there is",
)
ENDINGS: tuple[str, ...] = (
    "high quality", "simple animation", "smooth motion", "solid colours", "minimal", "flat design", "4k",
    "clean",
)
ADJECTIVES: tuple[str, ...] = (
    "solid", "flat", "bright", "plain", "simple", "little", "nice", "big", "large",
)
GROUNDS: tuple[str, ...] = (
    "on a {} background", "on a {} background", "over a {} backdrop", "against a {} background", "on {}",
        "in front of a {} wall", "with a {} background", "on a plain {} background",
)
FILLERS: tuple[str, ...] = (
    "about", "above", "after", "again", "all", "also", "always", "another", "any", "apple", "art", "as", "away",
    "beautiful", "because", "before", "begin", "behind", "best", "better", "between", "bird", "both", "boy",
    "bring", "but", "by", "camera", "can", "car", "cat", "centre", "center", "child", "cinematic", "city",
    "close", "cloud", "come", "cool", "could", "cute", "day", "deep", "detail", "detailed", "did", "different",
    "do", "dog", "door", "each", "early", "earth", "easy", "edge", "end", "enough", "epic", "even", "every",
    "eye", "face", "family", "far", "feel", "few", "field", "film", "find", "fire", "first", "flower", "follow",
    "food", "for", "forest", "form", "found", "four", "frame", "friend", "garden", "get", "girl", "give",
    "glass", "good", "grass", "great", "ground", "group", "had", "hand", "happy", "hard", "has", "have", "he",
    "head", "hear", "help", "here", "high", "him", "his", "hold", "home", "horse", "hot", "house", "how", "i",
    "if", "image", "important", "into", "is", "island", "it", "its", "just", "keep", "kind", "know", "lake",
    "land", "last", "late", "leave", "let", "life", "light", "like", "line", "live", "long", "look", "lovely",
    "made", "magic", "make", "man", "many", "may", "mean", "men", "might", "mind", "mountain", "much", "music",
    "must", "my", "name", "near", "need", "never", "new", "next", "night", "no", "nothing", "now", "number",
    "ocean", "of", "off", "often", "old", "once", "only", "open", "or", "other", "our", "out", "own", "page",
    "paper", "park", "part", "people", "person", "photo", "picture", "place", "plant", "play", "please",
    "point", "quiet", "rain", "read", "real", "realistic", "river", "road", "rock", "room", "run", "said",
    "same", "sand", "say", "scene", "school", "sea", "second", "see", "set", "she", "shot", "show", "side",
    "sky", "snow", "so", "some", "something", "song", "soon", "sound", "space", "start", "stop", "story",
    "street", "strong", "style", "such", "summer", "sun", "sure", "table", "take", "talk", "tall", "tell",
    "text", "than", "thank", "them", "then", "these", "they", "thing", "think", "this", "those", "three",
    "through", "time", "today", "together", "too", "toy", "tree", "true", "try", "two", "under", "until", "us",
    "use", "very", "video", "view", "wait", "walk", "want", "warm", "was", "watch", "water", "way", "we",
    "weather", "week", "well", "were", "what", "when", "where", "which", "while", "who", "why", "wide", "wild",
    "will", "wind", "window", "winter", "wish", "with", "without", "woman", "wood", "word", "work", "world",
    "would", "write", "year", "yes", "you", "young", "your",
)
"""Words that training sprinkles in, and that therefore change nothing."""
RESERVED: tuple[str, ...] = (
    "cross", "plus", "ring", "hoop", "donut", "heart", "diamond", "hexagon", "arrow", "moon", "oval",
    "rectangle", "spiral", "striped", "hollow", "outlined", "dotted", "gradient", "glowing", "neon",
    "pixelated", "blurred", "sketch", "soft", "fuzzy", "shadow", "checkered", "rainbow", "silver", "magenta",
    "lime", "bouncing", "zigzag", "shaking", "blinking", "sks",
)
"""Words with a token of their own that pretraining never uses: free for a fine-tuning."""
# fmt: on


def vocabulary() -> list[str]:
    """Every word with a token, in a fixed order."""
    words: set[str] = (
        set(FILLERS) | set(RESERVED) | {"a", "an", "the", "one", "and", "on", "in", "slow", "steady", "move"}
    )
    for table in (
        COLOUR_WORDS,
        SHAPE_WORDS,
        BACKGROUND_WORDS,
        MOTION_PHRASES,
        PLACES,
        ONE_WORD_MOVES,
        SPEED_WORDS,
    ):
        for phrases in table.values():
            for phrase in phrases:
                words.update(phrase.split())
    for phrases in (STRAIGHT_VERBS, OPENINGS, ENDINGS, ADJECTIVES, GROUNDS, ("diagonally", "diagonal")):
        for phrase in phrases:
            words.update(phrase.replace("{}", "").split())
    return sorted(words)
