pub struct Transaction;
