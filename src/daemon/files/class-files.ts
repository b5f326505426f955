/*
 * Traffic classes that an administrator sets by files, which programs may write: `tc/1/traffic_class` of a device of
 * mlx5, as MLNX_OFED has it, which takes the place of that of connected queue pairs of verbs; and rdma_cm's configfs,
 * `/sys/kernel/config/rdma_cm/DEVICE/ports/1/default_roce_tos`, the default of identifiers without RDMA_OPTION_ID_TOS
 * (Linux's cma_configfs). A program makes the folder of a device there, as in configfs; its
 * files appear before that call returns (REFRESH, spec/session.ts). Files are read when a call needs them.
 */
import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Device } from '../../core/model.ts'
import { LinkLayer } from '../../spec/enums.ts'
import type { DaemonDevice } from '../devices/devices.ts'
import { makeFolder, replaceFile } from './tree-files.ts'

const CONFIG = 'sys/kernel/config/rdma_cm'
/** Below the folder of a device. */
const OVERRIDE = 'tc/1/traffic_class'
const MODE = 0o644
const MAX_CLASS = 255
/** What takes the override away. */
const NO_CLASS = -1

/** The file of a device. */
interface Override {
  /** Its folder is this one now. */
  moved(folder: string): void
  /** Brings what a program has written into the form in which it is read. */
  write(): void
}

interface ClassFiles {
  /** `folder`: that of the device, below the tree's root. */
  add(device: DaemonDevice, folder: string): void
  remove(name: string): void
  /** `folder`: the new one. */
  rename(previousName: string, name: string, folder: string): void
  /** Writes what programs are about to read. */
  refresh(): void
}

/** A number from -1 or 0 to 255, also as `Global tclass=106` or `tclass=106`; undefined: something else. */
const classIn = (text: string): number | undefined => {
  const value = Number(/^(?:global )?(?:tclass=)?(-?\d{1,3})$/i.exec(text.trim())?.[1] ?? Number.NaN)
  return value >= NO_CLASS && value <= MAX_CLASS ? value : undefined
}

export const createClassFiles = (root: string): ClassFiles => {
  makeFolder(join(root, CONFIG))
  const overrides = new Map<string, Override>()

  const overrideOf = (device: Device, folder: string): Override => {
    let path = `${folder}/${OVERRIDE}`
    const textOf = (value: number): string => (value === NO_CLASS ? '' : `Global tclass=${value}\n`)
    let valid = NO_CLASS
    const read = (): number => {
      const text = readFileSync(join(root, path), 'utf8')
      const value = text === '' ? valid : classIn(text)
      valid = value ?? valid
      return valid
    }
    makeFolder(join(root, folder, 'tc/1'))
    replaceFile(root, path, '', MODE)
    device.taps.trafficClass = () => {
      const value = read()
      return value === NO_CLASS ? undefined : value
    }
    return {
      moved(to) {
        path = `${to}/${OVERRIDE}`
      },
      write: () => replaceFile(root, path, textOf(read()), MODE),
    }
  }

  const tosPath = (name: string): string => `${CONFIG}/${name}/ports/1/default_roce_tos`
  /** By name: the last valid number. */
  const defaults = new Map<string, number>()
  /** The number in the file of a device, or the last valid one. */
  const tosOf = (name: string): number => {
    const path = join(root, tosPath(name))
    if (!existsSync(path)) return 0
    const value = classIn(readFileSync(path, 'utf8')) ?? NO_CLASS
    if (value !== NO_CLASS) defaults.set(name, value)
    return defaults.get(name) ?? 0
  }

  return {
    add({ device, network }, folder) {
      const isEthernet = device.ports[0]?.attributes.linkLayer === LinkLayer.values.ETHERNET
      if (network?.link === undefined || !isEthernet) return
      if (device.driver.hasClassOverride) overrides.set(device.name, overrideOf(device, folder))
      device.taps.defaultTos = () => tosOf(device.name)
    },
    remove(name) {
      overrides.delete(name)
      defaults.delete(name)
      rmSync(join(root, CONFIG, name), { recursive: true, force: true })
    },
    rename(previousName, name, folder) {
      const override = overrides.get(previousName)
      overrides.delete(previousName)
      if (override !== undefined) overrides.set(name, override)
      override?.moved(folder)
      if (!existsSync(join(root, CONFIG, previousName))) return
      defaults.set(name, tosOf(previousName))
      renameSync(join(root, CONFIG, previousName), join(root, CONFIG, name))
    },
    refresh() {
      for (const { write } of overrides.values()) write()
      for (const name of readdirSync(join(root, CONFIG))) {
        makeFolder(join(root, CONFIG, name, 'ports/1'))
        replaceFile(root, tosPath(name), `${tosOf(name)}\n`, MODE)
      }
    },
  }
}
