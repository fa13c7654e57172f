/* UUIDs that follow from a name: the same name always gives the same one. */
#ifndef SLUICE_COMMON_UUID_H
#define SLUICE_COMMON_UUID_H

#include "common/buf.h"

enum { SL_UUID_TEXT = 37 }; /* Its length as text, with the zero at its end. */

/* RFC 9562's version 5 of the name in the namespace. */
void sl_uuid5(const unsigned char space[16], struct sl_span name, char ret[SL_UUID_TEXT]);

#endif
