#include <palmtop.h>
