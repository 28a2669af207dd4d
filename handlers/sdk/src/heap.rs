//! The allocator of a guest. It allocates from an arena that is part of the guest's memory from the start.
//! When the arena is full, it uses std's allocator. Each call has a fresh memory, so the arena is never
//! cleaned. Freed memory in the arena is reused only if it was the last block allocated.
//!
//! std's allocator grows the memory at its first allocation. To grow the memory, and to shrink it again for
//! the next call, the host makes two `mprotect` calls, and each takes a lock on the address space of the
//! whole process. Together they were a third of the cost of a small call and most of its p99
//! (docs/decisions/guest-heap.md).

// `GlobalAlloc` is an unsafe trait.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::ptr;

/// The host clears the arena after every call, at about 30 GB/s. A larger arena makes every call slower. With
/// a smaller one more calls grow their memory.
#[cfg(target_arch = "wasm32")]
const ARENA_BYTES: usize = 64 * 1024;

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static HEAP: Heap<ARENA_BYTES> = Heap::new();

#[repr(align(16))]
struct Heap<const BYTES: usize> {
    arena: UnsafeCell<[u8; BYTES]>,
    used: Cell<usize>,
}

// SAFETY: a guest has one thread. In the tests below, each `Heap` belongs to one thread.
unsafe impl<const BYTES: usize> Sync for Heap<BYTES> {}

impl<const BYTES: usize> Heap<BYTES> {
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "native builds use std's allocator"))]
    const fn new() -> Self {
        Self { arena: UnsafeCell::new([0; BYTES]), used: Cell::new(0) }
    }

    fn base(&self) -> *mut u8 {
        self.arena.get().cast()
    }

    /// The offset of a block in the arena; `None` if the block is not in the arena.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        (block as usize).checked_sub(self.base() as usize).filter(|offset| *offset < BYTES)
    }

    /// Takes `size` bytes at the next aligned offset; `None` if they do not fit.
    fn take(&self, size: usize, align: usize) -> Option<*mut u8> {
        let next = (self.base() as usize).checked_add(self.used.get())?.checked_next_multiple_of(align)?;
        let start = next - self.base() as usize;
        let end = start.checked_add(size).filter(|end| *end <= BYTES)?;
        self.used.set(end);
        // SAFETY: `start <= end <= BYTES`, so the pointer is within the arena or one past its end.
        Some(unsafe { self.base().add(start) })
    }
}

// SAFETY: a block of the arena lies between `used` before and after it was taken, and `used` falls below its
// end only when the block itself is freed or shrunk; so blocks never overlap. Everything else is std's.
unsafe impl<const BYTES: usize> GlobalAlloc for Heap<BYTES> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout.size(), layout.align()) {
            Some(block) => block,
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset(block) {
            Some(offset) if offset + layout.size() == self.used.get() => self.used.set(offset),
            Some(_) => {}
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(offset) = self.offset(block) else {
            return unsafe { System.realloc(block, layout, new_size) };
        };
        let is_last = offset + layout.size() == self.used.get();
        if is_last && new_size <= BYTES - offset {
            self.used.set(offset + new_size);
            return block;
        }
        if new_size <= layout.size() {
            return block;
        }
        // SAFETY: the alignment was good once, and the caller promises that the new size is.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: both hold at least the old size, and a block just taken overlaps no other.
            unsafe { ptr::copy_nonoverlapping(block, moved, layout.size()) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn blocks_are_aligned_and_do_not_overlap() {
        let heap = Heap::<256>::new();
        unsafe {
            let a = heap.alloc(layout(3, 1));
            let b = heap.alloc(layout(8, 8));
            assert_eq!(b as usize % 8, 0);
            assert!(b as usize >= a as usize + 3);
            assert!(heap.offset(a).is_some() && heap.offset(b).is_some());
        }
    }

    #[test]
    fn the_last_block_grows_and_shrinks_in_place() {
        let heap = Heap::<64>::new();
        unsafe {
            let a = heap.alloc(layout(8, 8));
            a.write_bytes(7, 8);
            assert_eq!(heap.realloc(a, layout(8, 8), 32), a);
            assert_eq!(heap.realloc(a, layout(32, 8), 16), a);
            assert_eq!(heap.used.get(), 16);
            heap.dealloc(a, layout(16, 8));
            assert_eq!(heap.used.get(), 0);
        }
    }

    #[test]
    fn a_block_that_is_not_the_last_is_moved_with_its_bytes() {
        let heap = Heap::<64>::new();
        unsafe {
            let a = heap.alloc(layout(8, 8));
            a.write_bytes(7, 8);
            let b = heap.alloc(layout(8, 8));
            let moved = heap.realloc(a, layout(8, 8), 16);
            assert!(moved != a && moved > b);
            assert_eq!(std::slice::from_raw_parts(moved, 8), [7; 8]);
        }
    }

    #[test]
    fn a_block_that_does_not_fit_comes_from_std() {
        let heap = Heap::<64>::new();
        unsafe {
            let a = heap.alloc(layout(64, 1));
            a.write_bytes(7, 64);
            let b = heap.alloc(layout(1, 1));
            assert!(heap.offset(b).is_none());
            // The block moves from the arena to std's allocator, and then within it.
            let moved = heap.realloc(a, layout(64, 1), 65);
            assert!(heap.offset(moved).is_none());
            assert_eq!(std::slice::from_raw_parts(moved, 64), [7; 64]);
            let moved = heap.realloc(moved, layout(65, 1), 1000);
            heap.dealloc(moved, layout(1000, 1));
            heap.dealloc(b, layout(1, 1));
        }
    }
}
