//! Containers on hosts: leases in the store, and what runs on a real Docker Engine.

mod leases;
