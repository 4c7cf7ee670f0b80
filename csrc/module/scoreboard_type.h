#ifndef CAP_MODULE_SCOREBOARD_TYPE_H
#define CAP_MODULE_SCOREBOARD_TYPE_H

#include "pool/scoreboard.h"
#include "py/state.h"

/* The memory of a Scoreboard that has this slot, and may be written to; it lives as long as
   that object. NULL with an exception. */
cap_board *cap_scoreboard_of(cap_state *st, PyObject *board, uint32_t slot);

#endif
