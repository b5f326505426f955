/*
 * Libraries that bypass preloaded functions. They find devices if loaded with RTLD_DEEPBIND, and none if loaded into
 * a new namespace.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, test } from 'node:test'
import { repoRoot } from '../paths.ts'
import { compileC, scratchFolder } from '../tools.ts'
import { cleanEnvironment, lacking, run, runUserdma, type Scope, temporaryFolder, userdma } from './programs.ts'

const PLUGIN = `
#include <infiniband/verbs.h>
int devices(void)
{
    int count = -1;
    struct ibv_device **list = ibv_get_device_list(&count);
    if (list)
        ibv_free_device_list(list);
    return count;
}
`

const UMAD_PLUGIN = `
struct umad_device_node { struct umad_device_node *next; };
struct umad_device_node *umad_get_ca_device_list(void);
int devices(void)
{
    int count = 0;
    for (struct umad_device_node *node = umad_get_ca_device_list(); node; node = node->next)
        count++;
    return count;
}
`

const OUTER_PLUGIN = `
int devices(void);
int outer(void) { return devices(); }
`

const PLUGIN_WITHOUT_RDMA = 'int devices(void) { return 77; }\n'

/**
 * Compiles test/shim/loading.c with a RUNPATH to the folder `lib`. There plugin.so needs libibverbs through
 * libinner.so, distant-plugin.so through a library in the folder of its RUNPATH, umad-plugin.so needs libibumad, and
 * other.so needs no RDMA. The folder `cached` has libcached.so.1, which needs libibverbs.
 */
const build = () => {
  const folder = scratchFolder()
  const [lib, elsewhere, cached] = ['lib', 'elsewhere', 'cached'].map(name => join(folder, name))
  for (const path of [lib, elsewhere, cached]) mkdirSync(path)
  const compileShared = (path: string, text: string, ...options: string[]) => {
    const source = join(folder, 'source.c')
    writeFileSync(source, text)
    compileC(path, [source], ['-shared', '-fPIC', ...options])
  }
  const verbs = ['-Wl,--no-as-needed', '-libverbs']
  compileShared(join(lib, 'libinner.so'), PLUGIN, ...verbs)
  compileShared(join(elsewhere, 'libdistant.so'), PLUGIN, ...verbs)
  compileShared(join(cached, 'libcached.so.1'), PLUGIN, ...verbs, '-Wl,-soname,libcached.so.1')
  /** A plugin that needs a library in `from`, which the loader finds by `runpath`. */
  const compileOuter = (name: string, from: string, library: string, runpath: string) =>
    compileShared(
      join(lib, name),
      OUTER_PLUGIN,
      ...[`-L${from}`, '-Wl,--no-as-needed', `-l${library}`, `-Wl,-rpath,${runpath}`],
    )
  compileOuter('plugin.so', lib, 'inner', '$ORIGIN')
  // The first folder of the RUNPATH does not exist.
  compileOuter('distant-plugin.so', elsewhere, 'distant', '/none:$ORIGIN/../elsewhere')
  compileShared(join(lib, 'umad-plugin.so'), UMAD_PLUGIN, '-l:libibumad.so.3')
  compileShared(join(lib, 'other.so'), PLUGIN_WITHOUT_RDMA)
  const program = compileC(
    join(folder, 'loading'),
    [join(repoRoot, 'test/shim/loading.c')],
    ['-ldl', '-Wl,--enable-new-dtags,-rpath,$ORIGIN/lib'],
  )
  return { folder, lib, cached, program }
}

describe('libraries loaded at run time', { skip: lacking('cc', 'ibv_devices') }, () => {
  const { folder, lib, cached, program } = build()
  /** The output of test/shim/loading.c, by each mode: the number of devices that `library` finds. */
  const load = async (t: Scope, modes: readonly string[], library: string) => {
    const env = cleanEnvironment({ XDG_RUNTIME_DIR: temporaryFolder(t) })
    const script = `for mode in ${modes.join(' ')}; do ${program} $mode '${library}'; done`
    const { stdout, stderr } = await runUserdma(t, ['run', '--', 'sh', '-c', script], { env })
    return { stdout, stderr }
  }

  for (const library of ['plugin.so', join(lib, 'plugin.so'), 'distant-plugin.so', 'umad-plugin.so', 'libibverbs.so.1'])
    it(`${library.replace(lib, '.')} finds devices with and without RTLD_DEEPBIND`, async t => {
      assert.deepEqual(await load(t, ['plain', 'deep', 'base'], library), { stdout: '1\n1\n1\n', stderr: '' })
    })

  it('a library of the cache of ldconfig finds devices with RTLD_DEEPBIND', { skip: lacking('unshare') }, async t => {
    if (process.geteuid?.() !== 0) return t.skip('only root can replace the cache')
    const [configuration, cache] = [join(folder, 'ld.so.conf'), join(folder, 'ld.so.cache')]
    writeFileSync(configuration, `${cached}\ninclude /etc/ld.so.conf\n`)
    assert.equal(spawnSync('/sbin/ldconfig', ['-X', '-C', cache, '-f', configuration]).status, 0)
    const env = cleanEnvironment({ XDG_RUNTIME_DIR: temporaryFolder(t) })
    for (const mode of ['plain', 'deep']) {
      const script = `mount --bind ${cache} /etc/ld.so.cache && exec ${userdma} run -- ${program} ${mode} libcached.so.1`
      const { stdout, stderr } = await run(t, 'unshare', ['-m', 'sh', '-c', script], { env })
      assert.deepEqual({ stdout, stderr }, { stdout: '1\n', stderr: '' }, mode)
    }
  })

  it('libraries without RDMA are found and bound as usual', async t => {
    const modes = ['plain', 'deep', 'base', 'dlmopen']
    assert.deepEqual(await load(t, modes, 'other.so'), { stdout: '77\n'.repeat(4), stderr: '' })
    const { stdout } = await load(t, ['deep'], './none.so')
    assert.match(stdout, /^\.\/none\.so: cannot open shared object file/)
  })

  it('RTLD_NOLOAD loads nothing, also with RTLD_DEEPBIND', async t => {
    assert.deepEqual(await load(t, ['noload'], join(lib, 'plugin.so')), { stdout: 'not loaded\n', stderr: '' })
  })

  it('libraries in a namespace of dlmopen find no devices: a message says why', async t => {
    for (const plugin of [join(lib, 'plugin.so'), join(lib, 'umad-plugin.so')])
      assert.deepEqual(await load(t, ['dlmopen'], plugin), {
        stdout: '0\n',
        stderr: `userdma: ${plugin} will find no devices: dlmopen loads it into a namespace without the preload library\n`,
      })
  })
})

test('libibverbs’ current functions are called if dlsym finds their first versions', {
  skip: lacking('cc', 'ibv_devinfo'),
}, async t => {
  const source = join(repoRoot, 'test/shim/old_dlsym.c')
  const dlsym = compileC(join(scratchFolder(), 'old_dlsym.so'), [source], ['-shared', '-fPIC', '-ldl'])
  const script = `LD_PRELOAD="$LD_PRELOAD ${dlsym}" exec ibv_devinfo`
  const env = cleanEnvironment({ XDG_RUNTIME_DIR: temporaryFolder(t) })
  const { stdout } = await runUserdma(t, ['run', '--', 'sh', '-c', script], { env })
  assert.match(stdout, /hca_id:\s*rxe0.*PORT_ACTIVE/s)
})
