/*
 * Differences between devices of different links (R10, R27).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Driver, driverClass, invokeNow, register, withLinkVariants } from '../../src/core/index.ts'
import { Classes } from '../../src/spec/classes.ts'
import { DevxUmem } from '../../src/spec/drivers/mlx5-devx.ts'
import { type LinkName, Links } from '../../src/spec/links.ts'
import { declare } from '../../src/uapi/object/description.ts'
import { describeDevice, openTestDevice, type TestState, testDriver } from './fixture.ts'

const { ah: Ah, pd: Pd, rc_qp: RcQp, interface: Interface } = Classes

/** The attributes of rc_qp.create that only devices of one link have. */
const attributesOf: Readonly<Record<LinkName, readonly string[]>> = {
  ib: ['ibAddress', 'ibAlternatePath'],
  roce: ['address', 'alternatePath', 'dmac', 'vlan'],
  iwarp: [],
  opa: ['opaAddress', 'opaAlternatePath'],
}
const links = Object.keys(attributesOf) as LinkName[]
const allAttributes = Object.values(attributesOf).flat()

const ethernet = {
  dgid: new Uint8Array(16),
  flowLabel: 0,
  sgidIndex: 0,
  hopLimit: 1,
  trafficClass: 0,
  sl: 0,
  staticRate: 0,
  isGlobal: 0,
  port: 1,
}

const openDeviceOf = (link: LinkName | undefined) => {
  const driver: Driver<TestState> = { ...testDriver(), ...(link !== undefined && { link }) }
  const setup = openTestDevice({}, driver)
  const described = declare(invokeNow(setup.context, Interface, 'query', 0, {}, setup.caller).out)
  const create = described.find(({ name }) => name === 'rc_qp')?.methods.create
  return { ...setup, describedAttributes: allAttributes.filter(name => create?.in[name] !== undefined) }
}

test('a device describes only the attributes of its link', () => {
  for (const link of links) assert.deepEqual(openDeviceOf(link).describedAttributes, attributesOf[link], link)
  assert.deepEqual(openDeviceOf(undefined).describedAttributes, allAttributes)
})

test('what has an address and is no path has it on each link', () => {
  const received: bigint[] = []
  const umem = driverClass(DevxUmem, {
    create(_call, _object, { address }) {
      received.push(address)
      return { umem: 0 }
    },
  })
  for (const link of links) {
    const driver: Driver<TestState> = { ...testDriver([...testDriver().classes, umem]), link }
    const { context, caller } = openTestDevice({}, driver)
    invokeNow(context, DevxUmem, 'create', 0, { address: 7n, length: 1n }, caller)
  }
  assert.deepEqual(
    received,
    links.map(() => 7n),
  )
})

test("an attribute of another link is refused, and the error names the device's link", () => {
  for (const link of links) {
    const { context, caller } = openDeviceOf(link)
    const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object
    for (const name of allAttributes.filter(attribute => !attributesOf[link].includes(attribute))) {
      const args = { pd, [name]: {}, userHandle: 0n } as never
      assert.throws(() => invokeNow(context, RcQp, 'create', 0, args, caller), {
        code: 'EINVAL',
        message: new RegExp(
          `^rc_qp.create: attribute ${name} does not belong to this device's link, ${Links[link].title}`,
        ),
      })
    }
  }
})

test("ah.create and pd.createAhs need the address attribute of the device's link (R25)", () => {
  const lids = { ...ethernet, srcPathBits: 0, dlid: 7 }
  for (const [link, name, list, address] of [
    ['ib', 'ibAddress', 'ibAddresses', lids],
    ['opa', 'opaAddress', 'opaAddresses', lids],
    ['roce', 'address', 'addresses', ethernet],
  ] as const) {
    const received: unknown[] = []
    const ah = driverClass(Ah, {
      create(_call, _object, args) {
        received.push((args as Record<string, unknown>)[name])
        return {}
      },
    })
    const others = testDriver().classes.filter(({ class: cls }) => cls !== Ah)
    const driver: Driver<TestState> = { ...testDriver([...others, ah]), link }
    const { context, caller } = openTestDevice({}, driver)
    const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object as number
    const create = (args: object) =>
      invokeNow(context, Ah, 'create', 0, { pd, userHandle: 0n, ...args } as never, caller)
    const createMany = (args: object) => invokeNow(context, Pd, 'createAhs', pd, args as never, caller)
    assert.throws(() => create({}), { code: 'EINVAL', message: `ah.create: attribute ${name} is missing` })
    assert.throws(() => createMany({}), { code: 'EINVAL', message: `pd.createAhs: attribute ${list} is missing` })
    create({ [name]: address })
    assert.equal(createMany({ [list]: [address, address] }).out.handles.length, 2)
    assert.deepEqual(received, [address, address, address])
  }
})

test('devices with equal drivers but different links share no table', () => {
  const { core, device } = openDeviceOf('ib')
  const [ib, roce] = (['ib', 'roce'] as const).map(link =>
    register(core, describeDevice(`other-${link}`, { ...testDriver(), link })),
  )
  assert.equal(ib.sharedTable, device.sharedTable)
  assert.notEqual(roce.sharedTable, device.sharedTable)
  assert.equal(core.tables.devices.size, 2)
  assert.equal(device.schema.classByName('rc_qp')?.methods.create?.in.address, undefined)
})

test('a driver can replace or remove a method on devices of one link', () => {
  const answerAs = (name: string) => () => {
    called.push(name)
    return {}
  }
  let called: string[] = []
  const pdClass = withLinkVariants<typeof Pd>(driverClass(Pd, { create: answerAs('all'), destroy: answerAs('all') }), {
    ib: { create: answerAs('ib') },
    opa: {
      create(call, object, args, core) {
        called.push('opa')
        return core(call, object, args)
      },
      destroy: null,
    },
  })
  const others = testDriver().classes.filter(({ class: cls }) => cls.name !== Pd.name)
  for (const [link, expected] of [
    ['ib', ['ib', 'all']],
    ['roce', ['all', 'all']],
    ['opa', ['opa', 'EOPNOTSUPP']],
    [undefined, ['all', 'all']],
  ] as const) {
    called = []
    const driver: Driver<TestState> = { ...testDriver([...others, pdClass]), ...(link !== undefined && { link }) }
    const { context, caller } = openTestDevice({}, driver)
    const { object = 0 } = invokeNow(context, Pd, 'create', 0, {}, caller)
    try {
      invokeNow(context, Pd, 'destroy', object, {}, caller)
    } catch (error) {
      called.push((error as { code: string }).code)
    }
    assert.deepEqual(called, expected, link)
  }
})
