/*
 * The options that configure a daemon, and the daemons that a command with these options can join.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { configArguments, difference, fullConfig, wantedConfig } from '../../src/cli/config.ts'
import { UsageError } from '../../src/cli/fail.ts'

describe('the configuration from options', () => {
  it('is the default configuration without options', async () => {
    assert.deepEqual(fullConfig(await wantedConfig({})), {
      devices: [{ name: 'rxe0', address: '127.0.0.1' }],
      fault: '',
      link: 'memory',
    })
  })

  it('survives a round trip through a daemon’s arguments', async () => {
    const wanted = fullConfig(
      await wantedConfig({ device: ['rxe_a@127.0.0.3', 'rxe1@::1'], fault: ['seed=7, drop=0.010'], link: 'udp' }),
    )
    const words = configArguments(wanted)
    const devices = ['--device', 'rxe_a@127.0.0.3', '--device', 'rxe1@::1']
    assert.deepEqual(words, [...devices, '--fault', 'drop=0.01,seed=7', '--link', 'udp'])
    const device = words.filter((_, i) => words[i - 1] === '--device')
    const fault = words.filter((_, i) => words[i - 1] === '--fault')
    assert.deepEqual(fullConfig(await wantedConfig({ device, fault, link: 'udp' })), wanted)
  })

  it('survives a round trip with the other options', async () => {
    const checked = { check: true, like: ['mlx5', 'efa'], buffers: 'all' } as const
    const options = { path: 'packets', ignoreMemlock: true, torment: '0:12', ...checked } as const
    const wanted = fullConfig(await wantedConfig(options))
    const words = ['--path', 'packets', '--ignore-memlock', '--check', '--torment', '0:12', '--like', 'mlx5,efa']
    // without --device and its value
    assert.deepEqual(configArguments(wanted).slice(2), [...words, '--buffers', 'all'])
    assert.equal(await difference(await wantedConfig(options), wanted), undefined)
    assert.equal(await difference(await wantedConfig({ torment: '8' }), wanted), 'has --torment 0:12, not 8')
    assert.equal(await difference(await wantedConfig({ path: 'direct' }), wanted), 'has path packets, not direct')
  })

  const refused: readonly (readonly [options: Parameters<typeof wantedConfig>[0], message: RegExp])[] = [
    [{ device: ['-rxe@127.0.0.1'] }, /begins with a letter or digit/],
    [{ device: ['rxe0'] }, /address is missing/],
    [{ device: ['rxe0@localhost'] }, /"localhost" is not an IPv4 or IPv6 address/],
    [{ device: ['rxe0@224.0.0.1'] }, /multicast/],
    [{ device: ['rxe0@127.0.0.1', 'rxe0@127.0.0.2'] }, /"rxe0" is given twice/],
    [{ device: ['rxe0@127.0.0.1', 'rxe1@127.0.0.1'] }, /same address/],
    [{ fault: ['loss=0.1'] }, /no "loss"; there are call, completion, device, program/],
    [{ fault: ['drop=2'] }, /"2" is not a probability from 0 to 1/],
    [{ torment: 'often' }, /^--torment "often": a seed is an integer from 0 to 4294967295; SEED:COUNT makes only/],
    [{ torment: '4294967296' }, /^--torment "4294967296": a seed is an integer from 0 to 4294967295;/],
    [{ torment: '7:' }, /^--torment "7:": a seed is/],
    [{ torment: '-1' }, /^--torment "-1": a seed is/],
  ]
  for (const [options, message] of refused)
    it(`refuses ${JSON.stringify(options)}`, () =>
      assert.rejects(wantedConfig(options), error => error instanceof UsageError && message.test(error.message)))
})

describe('joining a running daemon', () => {
  const running = wantedConfig({ device: ['rxe0@127.0.0.1', 'rxe1@::1'], fault: ['drop=0.1'] }).then(fullConfig)
  const cases: readonly (readonly [options: Parameters<typeof wantedConfig>[0], reason: RegExp | undefined])[] = [
    [{}, undefined],
    [{ device: ['rxe1@0:0:0:0:0:0:0:1', 'rxe0@127.0.0.1'] }, undefined],
    // the same faults: 10 % is 0.1, and seed 1 is the default
    [{ fault: ['drop=10%,seed=1', ''] }, undefined],
    [{ fault: ['drop=0.1', 'dup=0.1'] }, /^has faults drop=0\.1, not drop=0\.1;dup=0\.1$/],
    [{ device: ['rxe0@127.0.0.1'] }, /^has rxe0@127\.0\.0\.1, rxe1@::1, not rxe0@127\.0\.0\.1$/],
    [{ fault: ['drop=0.2'] }, /^has faults drop=0\.1, not drop=0\.2$/],
    [{ fault: [''] }, /^has faults drop=0\.1, not none$/],
    [{ link: 'memory' }, undefined],
    [{ path: 'direct' }, undefined],
    [{ path: 'packets' }, /^has path direct, not packets$/],
    [{ link: 'udp' }, /^has link memory, not udp$/],
    [{ ignoreMemlock: true }, /^applies RLIMIT_MEMLOCK/],
    [{ torment: '7' }, /^has no torment, not --torment 7$/],
    [{ buffers: 'sampled' }, undefined],
    [{ buffers: 'all' }, /^checks buffers by --buffers sampled, not all$/],
    [{ check: true }, /^does not check programs \(--check\)$/],
    [{ like: ['mlx5'] }, /^does not compare programs with mlx5 \(--like\)$/],
    [{ like: ['mlx5', 'efa'] }, /^does not compare programs with mlx5, efa \(--like\)$/],
  ]
  for (const [options, reason] of cases)
    it(`is ${reason ? 'refused' : 'possible'} with ${JSON.stringify(options)}`, async () => {
      const found = await difference(await wantedConfig(options), await running)
      if (reason) assert.match(found ?? '', reason)
      else assert.equal(found, undefined)
    })

  describe('with an adapter, whose PCI function the daemon chooses unless it is given', () => {
    const chosen = 'efa_0@127.0.0.2,driver=efa,pci=efa0:00:00.0,model=efa'
    const given = 'efa_0@127.0.0.2,driver=efa,pci=0000:81:00.0'
    const cases: readonly (readonly [running: string, wanted: string, isPossible: boolean])[] = [
      [chosen, 'efa_0@127.0.0.2,driver=efa', true],
      [chosen, chosen, true],
      [chosen, given, false],
      [chosen, 'efa_0@127.0.0.2,driver=efa,pci=efa0:01:00.0', false],
      [given, given, true],
      [given, 'efa_0@127.0.0.2,driver=efa', false],
    ]
    for (const [running, wanted, isPossible] of cases)
      it(`${wanted} at a daemon with ${running}`, async () => {
        const config = fullConfig(await wantedConfig({ device: [running] }))
        assert.equal((await difference(await wantedConfig({ device: [wanted] }), config)) === undefined, isPossible)
      })
  })

  it('says that a daemon has no devices if all were removed', async () => {
    assert.equal(
      await difference(await wantedConfig({ device: ['rxe0@127.0.0.1'] }), { ...fullConfig({}), devices: [] }),
      'has no devices, not rxe0@127.0.0.1',
    )
  })

  it('gives the reason if faults are requested and the daemon has none', async () => {
    assert.equal(
      await difference(await wantedConfig({ fault: ['dup=0.5'] }), fullConfig({})),
      'has no faults, not dup=0.5',
    )
  })
})
