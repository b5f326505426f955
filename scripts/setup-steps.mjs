/*
 * The steps of setup.mjs: npm packages, Debian packages (as root), build, and tests. The steps do only what is missing.
 *
 * Debian packages are found by their files, not by name: other distributions with these files work. Without root, or
 * after a failure of apt-get, the script prints what to install, and continues.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, lstatSync, realpathSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { build, purposeOf } from './build.mjs'
import { findProgram, inRoot, main, modified, runBeside, StepError, say } from './common.mjs'
import { step } from './progress.mjs'
import { quickBuild } from './quick-build.mjs'
import { chosenSources, runTests } from './test.mjs'

/**
 * Runs npm ci if node_modules is missing, incomplete, or older than the lock file. No package needs an install script.
 */
const installPackages = async () => {
  // npm writes this file last.
  const stamp = inRoot('node_modules', '.package-lock.json')
  if (modified(stamp) >= modified(inRoot('package-lock.json'))) return
  const folder = inRoot('node_modules')
  // npm ci would empty the target of a link, which other checkouts may use.
  if (existsSync(folder) && lstatSync(folder).isSymbolicLink())
    throw new StepError(
      `node_modules is a link to ${realpathSync(folder)}, which is older than package-lock.json: run \`npm ci\` there`,
    )
  const npm = findProgram('npm')
  if (!npm)
    throw new StepError('npm is not in PATH: install it (it comes with Node.js from nodejs.org), then try again')
  say('installing npm packages (npm ci)')
  const args = ['ci', '--include=dev', '--include=optional', '--ignore-scripts', '--no-audit', '--no-fund']
  if (!(await step('npm packages', () => runBeside(npm, args, { stdio: ['ignore', 2, 2] })))) {
    throw new StepError('npm ci failed (see above): check the network and the npm registry, then run `npm ci` by hand')
  }
}

const anyOf = paths => () => paths.some(existsSync)
const program = name => () => findProgram(name) !== undefined

/** python3-pyverbs has its tests in a folder of documentation. */
const PYVERBS_TESTS = '/usr/share/doc/rdma-core/tests'

/** Debian packages. `for`: purposes of `--for`. `use`: a text for messages. `found`: true if the needed files exist. */
const PACKAGES = [
  {
    name: 'gcc',
    for: ['start', 'package', 'test', 'bench'],
    use: 'builds the preload shim',
    found: () => ['cc', 'gcc', 'clang'].some(name => findProgram(name)),
  },
  {
    name: 'libc6-dev',
    for: ['start', 'package', 'test', 'bench'],
    use: 'builds the preload shim',
    found: anyOf(['/usr/include/stdio.h']),
  },
  {
    name: 'libibverbs-dev',
    for: ['start', 'package', 'test', 'bench'],
    use: 'builds the preload shim',
    found: anyOf(['/usr/include/infiniband/verbs.h']),
  },
  {
    name: 'librdmacm-dev',
    for: ['test', 'bench'],
    use: 'builds test programs and a benchmark of connections',
    found: anyOf(['/usr/include/rdma/rdma_cma.h']),
  },
  {
    name: 'rdmacm-utils',
    for: ['test'],
    use: 'rping, ucmatose and the other programs of rdma_cm',
    found: program('rping'),
  },
  {
    name: 'infiniband-diags',
    for: ['test'],
    use: 'ibstat and ibstatus',
    found: program('ibstat'),
  },
  {
    name: 'opensm',
    for: ['test'],
    use: 'osmtest, which tests the subnet manager of devices',
    found: program('osmtest'),
  },
  {
    name: 'ibverbs-utils',
    for: ['start', 'test', 'bench'],
    use: 'ibv_devinfo and ibv_rc_pingpong',
    found: program('ibv_rc_pingpong'),
  },
  {
    name: 'ibverbs-providers',
    for: ['start', 'test', 'bench'],
    use: 'the rxe provider of libibverbs',
    found: anyOf(['/etc/libibverbs.d/rxe.driver']),
  },
  { name: 'perftest', for: ['test', 'bench'], use: 'ib_write_bw', found: program('ib_write_bw') },
  { name: 'tshark', for: ['test'], use: 'reads our packet captures', found: program('tshark') },
  { name: 'gdb', for: ['test'], use: 'tests docs/how-to/debuggers.md', found: program('gdb') },
  { name: 'strace', for: ['test'], use: 'tests docs/how-to/debuggers.md', found: program('strace') },
  { name: 'valgrind', for: ['test'], use: 'tests docs/how-to/debuggers.md', found: program('valgrind') },
  {
    name: 'iproute2',
    for: ['test', 'bench'],
    use: 'network namespaces, which some tests need',
    found: program('ip'),
  },
  { name: 'iperf3', for: ['bench'], use: 'measures TCP, with which benchmarks compare', found: program('iperf3') },
  ...(process.arch === 'x64'
    ? [
        {
          name: 'qemu-system-x86',
          for: ['long'],
          use: "runs a guest with Linux's own soft device, which ours talks to",
          found: program('qemu-system-x86_64'),
        },
        {
          name: 'gcc-aarch64-linux-gnu',
          for: ['package', 'long'],
          use: 'compiles the packages for arm64',
          found: program('aarch64-linux-gnu-gcc'),
        },
        {
          name: 'libc6-dev-arm64-cross',
          for: ['package', 'long'],
          use: 'compiles the packages for arm64',
          found: anyOf(['/usr/aarch64-linux-gnu/include/stdio.h']),
        },
        { name: 'e2fsprogs', for: ['long'], use: "makes the guest's disk", found: program('mke2fs') },
      ]
    : []),
  {
    name: 'xz-utils',
    for: ['package', 'long'],
    use: "compresses packages, and unpacks the guest's kernel modules",
    found: program('xz'),
  },
  { name: 'binutils', for: ['package'], use: 'strips programs of packages', found: program('objdump') },
  {
    name: 'musl-tools',
    for: ['test'],
    use: 'compiles a test program with another C library',
    found: program('musl-gcc'),
  },
  ...Object.entries({
    fio: 'fio',
    qperf: 'qperf',
    'libfabric-bin': 'fi_pingpong',
    'ucx-utils': 'ucx_perftest',
    'openmpi-bin': 'mpirun',
    'libopenmpi-dev': 'mpicc',
    'dapl2-utils': 'dtest',
    tgt: 'tgtd',
    'libiscsi-bin': 'iscsi-test-cu',
    mpich: 'mpirun.mpich',
    slurmctld: 'slurmctld',
    slurmd: 'slurmd',
    'slurm-client': 'srun',
    munge: 'munged',
    curl: 'curl',
  }).map(([name, file]) => ({
    name,
    for: ['long'],
    use: `an application, whose ${file} is run`,
    found: program(file),
  })),
  { name: 'clang', for: ['long'], use: 'compiles programs with its sanitizers', found: program('clang') },
  {
    name: 'libclang-rt-14-dev',
    for: ['long'],
    use: "has Clang's sanitizers",
    found: anyOf(['/usr/lib/llvm-14/lib/clang/14.0.6/lib/linux']),
  },
  {
    name: 'libmpich-dev',
    for: ['long'],
    use: 'compiles programs of MPI',
    found: anyOf(
      ['x86_64', 'aarch64'].flatMap(cpu => [
        `/usr/lib/${cpu}-linux-gnu/mpich/include/mpi.h`,
        `/usr/include/${cpu}-linux-gnu/mpich/mpi.h`,
      ]),
    ),
  },
  ...Object.entries({ 'hwloc-nox': 'lstopo-no-graphics', pciutils: 'lspci' }).map(([name, file]) => ({
    name,
    for: ['long'],
    use: `${file} looks for devices by their PCI functions`,
    found: program(file),
  })),
  {
    name: 'mmdebstrap',
    for: ['package', 'long'],
    use: 'makes the image, and fresh roots to install in',
    found: program('mmdebstrap'),
  },
  { name: 'skopeo', for: ['long'], use: 'reads the image', found: program('skopeo') },
  { name: 'podman', for: ['long'], use: 'runs the image, and containers with CDI', found: program('podman') },
  {
    name: 'kubernetes-client',
    for: ['long'],
    use: 'kubectl reads the manifests of deploy/kubernetes',
    found: program('kubectl'),
  },
  { name: 'uidmap', for: ['long'], use: 'maps ids of containers without root', found: program('newuidmap') },
  { name: 'umoci', for: ['long'], use: 'unpacks the image', found: program('umoci') },
  ...(process.arch === 'x64'
    ? [
        ...Object.entries({ 'arch-test': 'arch-test', 'qemu-user-static': 'qemu-aarch64-static' }).map(
          ([name, file]) => ({
            name,
            for: ['package', 'long'],
            use: 'makes the image for arm64',
            found: program(file),
          }),
        ),
        ...Object.entries({ 'qemu-system-arm': 'qemu-system-aarch64', cpio: 'cpio' }).map(([name, file]) => ({
          name,
          for: ['long'],
          use: 'runs the image for arm64',
          found: program(file),
        })),
      ]
    : []),
  { name: 'lintian', for: ['long'], use: 'checks the Debian package', found: program('lintian') },
  { name: 'chromium', for: ['long'], use: 'shows the page of `userdma inspect`', found: program('chromium') },
  { name: 'protobuf-compiler', for: ['long'], use: 'decodes traces for Perfetto', found: program('protoc') },
  { name: 'zsh', for: ['long'], use: 'reads its completion', found: program('zsh') },
  { name: 'fish', for: ['long'], use: 'reads its completion', found: program('fish') },
  { name: 'git', for: ['test'], use: 'runs under the preload library without RDMA', found: program('git') },
  {
    name: 'python3',
    for: ['test'],
    use: 'checks captures; runs under the preload library without RDMA',
    found: program('python3'),
  },
  {
    name: 'python3-pyverbs',
    for: ['test'],
    use: "a library in Python on ours, with rdma-core's own tests of it",
    found: () => ['/usr/lib/python3/dist-packages/pyverbs', `${PYVERBS_TESTS}/__init__.py`].every(existsSync),
  },
  {
    name: 'python3-pytest-xdist',
    for: ['test'],
    use: 'pytest, also with several processes: an example of tests with faults',
    found: anyOf(['/usr/lib/python3/dist-packages/xdist']),
  },
]

/**
 * Of a line of APT::Status-Fd: `dlstatus:NUMBER:PERCENT:TEXT` for downloads, `pmstatus:PACKAGE:PERCENT:TEXT` for dpkg.
 */
const progressOf = line => {
  const [, kind, percent, text] = /^(dl|pm)status:[^:]*(?::[^:]*)??:([\d.]+):(.*)$/.exec(line) ?? []
  return kind && `Debian packages: ${kind === 'dl' ? 'download' : 'installation'} ${Math.floor(percent)} %, ${text}`
}

/** Runs apt-get, and shows its output only after a failure. `show` gets how far it is. True on success. */
const apt = async (args, show) => {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const options = { env, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] }
  const child = spawn('apt-get', ['-o', 'APT::Status-Fd=3', ...args], options)
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', text => {
      output += text
    })
  createInterface(child.stdio[3]).on('line', line => {
    const text = progressOf(line)
    if (text) show(text)
  })
  const failure = await once(child, 'close').then(
    ([status]) => (status === 0 ? undefined : output),
    error => `${error.message}\n`,
  )
  if (failure !== undefined) process.stderr.write(failure)
  return failure === undefined
}

/** `--reinstall`: small images omit documentation of installed packages. */
const INSTALL = [
  ...['-y', '-q', '--no-install-recommends', '--reinstall'],
  ...['-o', `Dpkg::Options::=--path-include=${PYVERBS_TESTS}/*`],
]
const aptInstall = async names => {
  say(`installing Debian packages, which takes a minute: ${names.join(' ')}`)
  return step(
    'Debian packages: lists',
    async show => (await apt(['-q', 'update'], show)) && (await apt([...INSTALL, 'install', ...names], show)),
  )
}

const isFor = (entry, purpose) => entry.for.includes(purpose) || (purpose === 'long' && entry.for.includes('test'))

/** As root, installs Debian packages. Prints packages that are still missing, with their use. */
const installDebian = async purpose => {
  const findMissing = () => PACKAGES.filter(entry => isFor(entry, purpose) && !entry.found())
  const missing = findMissing()
  if (missing.length === 0) return
  const canInstall = process.getuid && process.getuid() === 0 && findProgram('apt-get')
  const hasFailed = canInstall && !(await aptInstall(missing.map(entry => entry.name)))
  const stillMissing = findMissing()
  if (stillMissing.length === 0) return
  for (const entry of stillMissing) say(`missing: ${entry.name} (${entry.use})`)
  const reason = hasFailed ? 'apt-get failed (see above). ' : ''
  const names = stillMissing.map(entry => entry.name).join(' ')
  say(`${reason}To have everything, run: sudo apt-get update && sudo apt-get install ${names}`)
  say('continuing without')
}

/** The build, beside which Debian packages are installed: only its last part needs them. `text`: as for `build`. */
const prepare = async (purpose, text) => {
  const debian = installDebian(purpose)
  const [isBuilt] = await Promise.all([installPackages().then(() => build(purpose, debian, text)), debian])
  if (!isBuilt) throw new StepError('the build failed: the messages above say where')
}

main(async args => {
  const at = args.indexOf('--test')
  const purpose = purposeOf(at < 0 ? args : args.slice(0, at), 'setup.mjs')
  if (at < 0) return prepare(purpose)
  const testArgs = args.slice(at + 1)
  const sources = await chosenSources(testArgs)
  if (sources === undefined) {
    await prepare(purpose)
    return runTests(testArgs)
  }
  await installPackages()
  const { files, text } = await quickBuild(sources)
  if (files === undefined) await prepare(purpose, text)
  return runTests(testArgs, files)
})
