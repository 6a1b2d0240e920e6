/* Read before every C source that the dependencies compile: glommio 0.9's shim misses declarations of <fcntl.h> with glibc
 * 2.43 and later. The assembler sources of other crates are preprocessed with the same flags and can make nothing of C. */
#ifndef __ASSEMBLER__
#include <fcntl.h>
#endif
