/* A plugin for QEMU's user emulation that counts, stage by stage, how often every block of instructions runs, and how
 * many of its accesses miss in caches of given sizes. `arm.py` compiles it and reads what it writes.
 *
 * Arguments: out=FILE, caches=BYTES:WAYS/BYTES:WAYS/... from the first level outwards; a power of two of sets each.
 *
 * A stage ends with each write to standard output (and is then named) and with each reading of the clock. Written is:
 *
 *   line of the stage's end:  stage write|clock|exit
 *   a line for each block:    address instructions runs runs-behind-itself misses-of-each-level...   (address in hex)
 *
 * One thread only. Lines of 64 bytes; the least recently used one gives way; what is fetched ahead is not modelled, so
 * misses are the lines that have to come at all. Instructions' own fetches are left out.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is used of qemu-plugin.h, which Debian has no package with. */
typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { CB_NO_REGS = 0, MEM_RW = 3 };
typedef void (*udata_cb)(unsigned vcpu, void *udata);
typedef void (*mem_cb)(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *udata);
typedef void (*trans_cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*syscall_cb)(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                           uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
typedef void (*exit_cb)(qemu_plugin_id_t id, void *udata);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, trans_cb cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, udata_cb cb, int flags, void *udata);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, mem_cb cb, int flags, int rw, void *udata);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, syscall_cb cb);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, exit_cb cb, void *udata);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(struct qemu_plugin_tb *tb, size_t index);

__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_VERSION;

enum { LINE_BITS = 6, LEVELS_MAX = 3, WAYS_MAX = 16 };
/* 64-bit Arm's numbers of system calls. */
enum { CALL_WRITE = 64, CALL_CLOCK_GETTIME = 113, STDOUT = 1 };

typedef struct Block {
    uint64_t address, instructions, runs, again, misses[LEVELS_MAX];
    struct Block *next;
} Block;

typedef struct {
    uint64_t sets, ways, *lines; /* of each set `ways` lines, the last used first */
} Cache;

static Cache caches[LEVELS_MAX];
static int levels;
static Block *blocks, *last;
static FILE *out;

/* Looks a line up and puts it first; whether it was there. */
static int look_up(Cache *cache, uint64_t line) {
    uint64_t *set = cache->lines + (line & (cache->sets - 1)) * cache->ways, i = 0;
    if (set[0] == line) return 1;
    while (i < cache->ways - 1 && set[i] != line) i++;
    int found = set[i] == line;
    memmove(set + 1, set, i * sizeof *set);
    set[0] = line;
    return found;
}

static void on_memory(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *udata) {
    (void)vcpu, (void)info;
    Block *block = udata;
    for (int i = 0; i < levels; i++) {
        if (look_up(&caches[i], address >> LINE_BITS)) return;
        block->misses[i]++;
    }
}

static void on_run(unsigned vcpu, void *udata) {
    (void)vcpu;
    Block *block = udata;
    block->runs++;
    block->again += block == last;
    last = block;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    Block *block = calloc(1, sizeof *block);
    if (block == NULL) abort();
    block->address = qemu_plugin_tb_vaddr(tb);
    block->instructions = qemu_plugin_tb_n_insns(tb);
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_run, CB_NO_REGS, block);
    for (size_t i = 0; i < block->instructions; i++) {
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), on_memory, CB_NO_REGS, MEM_RW, block);
    }
}

static void end_stage(const char *how) {
    fprintf(out, "stage %s\n", how);
    for (Block *b = blocks; b != NULL; b = b->next) {
        if (b->runs == 0) continue;
        fprintf(out, "%" PRIx64 " %" PRIu64 " %" PRIu64 " %" PRIu64, b->address, b->instructions, b->runs, b->again);
        for (int i = 0; i < levels; i++) fprintf(out, " %" PRIu64, b->misses[i]);
        fputc('\n', out);
        b->runs = b->again = 0;
        memset(b->misses, 0, sizeof b->misses);
    }
}

static void on_call(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                    uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)vcpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == CALL_WRITE && a1 == STDOUT) end_stage("write");
    if (number == CALL_CLOCK_GETTIME) end_stage("clock");
}

static void on_exit_(qemu_plugin_id_t id, void *udata) {
    (void)id, (void)udata;
    end_stage("exit");
    fclose(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                                               char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) out = fopen(argv[i] + 4, "w");
        if (strncmp(argv[i], "caches=", 7) != 0) continue;
        for (char *at = argv[i] + 7; *at != '\0' && levels < LEVELS_MAX; levels++) {
            uint64_t bytes = strtoull(at, &at, 10), ways = *at == ':' ? strtoull(at + 1, &at, 10) : 0;
            if (ways == 0 || ways > WAYS_MAX || bytes >> LINE_BITS < ways) return 1;
            Cache cache = {(bytes >> LINE_BITS) / ways, ways, NULL};
            cache.lines = malloc(cache.sets * ways * sizeof *cache.lines);
            if (cache.lines == NULL || (cache.sets & (cache.sets - 1)) != 0) return 1;
            memset(cache.lines, 0xFF, cache.sets * ways * sizeof *cache.lines);
            caches[levels] = cache;
            at += *at == '/';
        }
    }
    if (out == NULL) return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_call);
    qemu_plugin_register_atexit_cb(id, on_exit_, NULL);
    return 0;
}
